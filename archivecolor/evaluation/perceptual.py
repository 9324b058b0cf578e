"""The paper's perceptual distance (eq. 7): VGG19 features of the colourised and of the true picture."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archivecolor.errors import DataError

SIDE_PX: Final = 224
CAFFE_MEAN_BGR: Final = (103.939, 116.779, 123.68)
IMAGENET_MEAN_RGB: Final = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION_RGB: Final = (0.229, 0.224, 0.225)
# Where relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 are among torchvision's VGG19 feature layers.
RELU_LAYERS: Final = (1, 6, 11, 20, 29)
DOWNLOAD: Final = "download"

Preprocessing = Literal["caffe", "torchvision"]


class PerceptualDistance(nn.Module):
    """L_perc: the mean over relu1_1 to relu5_1 of the mean absolute difference of VGG19 features.

    The paper writes (1/L) sum (1/N_i) ||F_i(x) - F_i(G(x))||_1^2 and speaks of the L1 distance being averaged, as in
    its sources; a squared sum over the millions of features of relu1_1 would be of the order of 1e9, where Table I has
    about 60. The exponent is therefore read as no square. Pictures are 224x224 (bicubic), in the preprocessing of the
    original Caffe network (BGR, 0..255, ImageNet's mean subtracted), which sets the scale of Table I.

    Args:
        features: torchvision's VGG19 feature layers, with weights.
        preprocessing: ``"caffe"``, the paper's; or ``"torchvision"`` (RGB 0..1, mean and deviation taken out), what
            torchvision's own weights were trained on, on which the figures are some sixty times smaller.
    """

    def __init__(self, features: nn.Sequential, preprocessing: Preprocessing = "caffe") -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.layers = features[: RELU_LAYERS[-1] + 1].eval().requires_grad_(False)
        for layer in self.layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # torchvision's would overwrite the features that are kept
        caffe = preprocessing == "caffe"
        mean, deviation = (CAFFE_MEAN_BGR, (1.0, 1.0, 1.0)) if caffe else (IMAGENET_MEAN_RGB, IMAGENET_DEVIATION_RGB)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(1, 3, 1, 1))
        self.mean: Tensor
        self.deviation: Tensor

    def features(self, rgb: Tensor) -> list[Tensor]:
        """relu1_1 to relu5_1 of (N, 3, H, W) R'G'B' 0..255."""
        if rgb.shape[-2:] != (SIDE_PX, SIDE_PX):
            rgb = F.interpolate(rgb, size=(SIDE_PX, SIDE_PX), mode="bicubic", align_corners=False).clamp(0, 255)
        x = rgb.flip(1) if self.preprocessing == "caffe" else rgb / 255
        x = (x - self.mean) / self.deviation
        kept = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in RELU_LAYERS:
                kept.append(x)
        return kept

    @torch.no_grad()
    def forward(self, rgb: Tensor, true_rgb: Tensor) -> Tensor:
        """L_perc of each image, (N,), from two (N, 3, H, W) R'G'B' 0..255 tensors."""
        pairs = zip(self.features(rgb), self.features(true_rgb), strict=True)
        return torch.stack([(a - b).abs().mean(dim=(1, 2, 3)) for a, b in pairs]).mean(dim=0)


def load_vgg19(source: str | Path | None = None, preprocessing: Preprocessing = "caffe") -> PerceptualDistance:
    """The distance by VGG19 with ImageNet's weights.

    Args:
        source: a file with a state dict of torchvision's names (its own, or Caffe's converted); ``"download"`` to let
            torchvision fetch its own; None for the file that torchvision has downloaded before.

    Raises:
        DataError: not there, or not VGG19's weights. Nothing is ever downloaded unless asked for.
    """
    from torchvision.models import VGG19_Weights

    if source == DOWNLOAD:
        try:
            state = VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise DataError(f"VGG19's weights cannot be downloaded ({error}); name a file with --vgg") from error
        return PerceptualDistance(_vgg19_features(state, "download"), preprocessing)
    path = Path(source) if source else cached_vgg19()
    if not path.is_file():
        raise DataError(
            f"{path}: VGG19's ImageNet weights are not there: --vgg FILE names them, --vgg download gets them"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its zip and pickle readers raise, with much advice
        raise DataError(f"{path}: not a readable file of weights, as torch saves them") from error
    return PerceptualDistance(_vgg19_features(state, str(path)), preprocessing)


def cached_vgg19() -> Path:
    """Where torchvision keeps the file once it has downloaded it."""
    from torchvision.models import VGG19_Weights

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(VGG19_Weights.IMAGENET1K_V1.url).name


def _vgg19_features(state: object, name: str) -> nn.Sequential:
    from torchvision.models import vgg19

    with torch.device("meta"):  # 140 million values that would only be replaced
        network = vgg19(weights=None)
    try:
        network.load_state_dict(state, assign=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise DataError(f"{name}: not the weights of torchvision's VGG19 ({str(error).splitlines()[0]})") from error
    features = network.features
    assert isinstance(features, nn.Sequential)
    return features
