"""L_perc against a plain computation on a VGG19 with random weights."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.models import vgg19

from archivecolor.errors import DataError
from archivecolor.evaluation.perceptual import PerceptualDistance, cached_vgg19, load_vgg19

# Convolutions of VGG19 (Simonyan and Zisserman, configuration E): channels, and M for max pooling.
LAYOUT = (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    with torch.device("meta"):
        network = vgg19(weights=None)
    state = {
        name: torch.randn(value.shape) * 0.05 for name, value in network.state_dict().items() if "features" in name
    }
    state |= {
        name: torch.zeros(1).expand(value.shape) for name, value in network.state_dict().items() if name not in state
    }
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Two (3, 64, 48) R'G'B' 0..255 pictures, smooth enough to resize alike."""
    random = np.random.default_rng(1)
    small = random.integers(0, 256, (2, 8, 6, 3)).astype(np.uint8)
    large = np.stack([cv2.resize(image, (48, 64), interpolation=cv2.INTER_CUBIC) for image in small])
    return torch.from_numpy(large).permute(0, 3, 1, 2).float()


def plain_features(state: dict[str, torch.Tensor], rgb: torch.Tensor) -> list[torch.Tensor]:
    """relu1_1 to relu5_1 of one picture, layer by layer, from its pixels resized by OpenCV."""
    resized = cv2.resize(rgb.permute(1, 2, 0).numpy(), (224, 224), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    bgr = np.ascontiguousarray(resized[:, :, ::-1]) - np.array([103.939, 116.779, 123.68], dtype=np.float32)
    x = torch.from_numpy(bgr.astype(np.float32)).permute(2, 0, 1)[None]
    kept, index, first = [], 0, True
    for layer in LAYOUT:
        if layer == "M":
            x, first, index = F.max_pool2d(x, 2), True, index + 1
            continue
        x = F.relu(F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1))
        index += 2
        if first:
            kept.append(x)
        first = False
    return kept


def test_it_is_eq_7(weights: Path, pictures: torch.Tensor) -> None:
    distance = load_vgg19(weights)(pictures[:1], pictures[1:]).item()
    state = torch.load(weights, weights_only=True)
    pairs = zip(plain_features(state, pictures[0]), plain_features(state, pictures[1]), strict=True)
    each = [float((a - b).abs().sum() / a.numel()) for a, b in pairs]
    assert len(each) == 5 and min(each) > 0
    assert distance == pytest.approx(sum(each) / 5, rel=5e-3)


def test_no_distance_to_itself_and_one_value_an_image(weights: Path, pictures: torch.Tensor) -> None:
    distance = load_vgg19(weights)
    assert distance(pictures, pictures).tolist() == [0, 0]
    both, alone = distance(pictures, pictures.flip(0)), distance(pictures[:1], pictures[1:])
    torch.testing.assert_close(both, alone.expand(2), rtol=1e-4, atol=0)


def test_torchvisions_own_preprocessing(weights: Path, pictures: torch.Tensor) -> None:
    distance = load_vgg19(weights, "torchvision")
    resized = F.interpolate(pictures, size=(224, 224), mode="bicubic", align_corners=False).clamp(0, 255)
    normalised = (resized / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    expected = F.relu(distance.layers[0](normalised))
    torch.testing.assert_close(distance.features(pictures)[0], expected, atol=1e-4, rtol=1e-4)


def test_nothing_is_downloaded_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert cached_vgg19().is_relative_to(tmp_path) and cached_vgg19().name.startswith("vgg19-")
    with pytest.raises(DataError, match="--vgg"):
        load_vgg19()
    with pytest.raises(DataError, match="gone"):
        load_vgg19(tmp_path / "gone.pth")


def test_torchvisions_cached_file_is_found(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached_vgg19().parent.mkdir(parents=True)
    cached_vgg19().symlink_to(weights)
    assert isinstance(load_vgg19(), PerceptualDistance)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(DataError, match=r"text\.pth: not a readable file of weights") as raised:
        load_vgg19(tmp_path / "text.pth")
    assert "\n" not in str(raised.value) and "weights_only" not in str(raised.value)
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"other\.pth: not the weights of torchvision's VGG19"):
        load_vgg19(tmp_path / "other.pth")
