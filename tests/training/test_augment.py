"""Photographs to input and target: Lab, crops and the look of old film."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch

from archivecolor import color
from archivecolor.training.augment import film_look, jpeg, make_batch, random_crops
from archivecolor.training.sampling import Draws
from tests.training.conftest import make_photo

CPU = torch.device("cpu")


@pytest.fixture
def photos() -> torch.Tensor:
    return torch.from_numpy(np.stack([make_photo(i, 64, 64) for i in range(24)]))


def draws(n: int = 24, seed: int = 0) -> Draws:
    return Draws(seed, n, slice(0, n), CPU)


def test_plain_batch_is_the_photographs_lab(photos: torch.Tensor) -> None:
    l_norm, ab_norm = make_batch(photos, 64)
    lab = color.rgb_to_lab(photos.permute(0, 3, 1, 2).float() / 255)
    torch.testing.assert_close((l_norm + 1) * 50, lab[:, :1], atol=1e-4, rtol=0)
    torch.testing.assert_close(ab_norm * 110, lab[:, 1:], atol=1e-4, rtol=0)
    assert l_norm.shape == (24, 1, 64, 64) and ab_norm.is_contiguous(memory_format=torch.channels_last)


def test_smaller_networks_get_the_whole_photograph_resized(photos: torch.Tensor) -> None:
    _, ab_norm = make_batch(photos, 32)
    assert ab_norm.shape == (24, 2, 32, 32)
    plain = cv2.resize(photos[0].numpy(), (32, 32), interpolation=cv2.INTER_AREA)
    lab = color.rgb_to_lab(torch.from_numpy(plain).permute(2, 0, 1).float() / 255)
    assert (ab_norm[0] * 110 - lab[1:]).abs().mean() < 2


def test_film_look_changes_the_input_and_never_the_target(photos: torch.Tensor) -> None:
    plain_l, plain_ab = make_batch(photos, 64)
    film_l, film_ab = make_batch(photos, 64, film=True, draws=draws())
    assert torch.equal(film_ab, plain_ab)
    assert (film_l - plain_l).abs().mean(dim=(1, 2, 3)).gt(0.005).float().mean() > 0.8
    assert film_l.min() >= -1 and film_l.max() <= 1


def test_crops_move_input_and_target_together(photos: torch.Tensor) -> None:
    l_norm, ab_norm = make_batch(photos, 48, augment=True, draws=draws())
    rgb = color.lab_to_linear_rgb(torch.cat([(l_norm + 1) * 50, ab_norm * 110], 1))
    assert rgb.min() > -0.01 and rgb.max() < 1.01, "L and ab of different places would leave the gamut"
    again, _ = make_batch(photos, 48, augment=True, draws=draws())
    other, _ = make_batch(photos, 48, augment=True, draws=draws(seed=1))
    assert torch.equal(again, l_norm) and not torch.equal(other, l_norm)


def test_crops_stay_inside_and_flip_half() -> None:
    ramp = torch.linspace(0, 1, 64).expand(200, 3, 64, 64).clone()
    ramp[:, 1] = ramp[:, 0].transpose(1, 2)
    crops = random_crops(ramp, 32, draws(200))
    slope_x = crops[:, 0].diff(dim=2).mean(dim=(1, 2)) * 31
    slope_y = crops[:, 1].diff(dim=1).mean(dim=(1, 2)) * 31
    assert 0.4 < (slope_x < 0).float().mean() < 0.6 and torch.all(slope_y > 0)
    for extent in (slope_x.abs(), slope_y):
        assert extent.min() > 0.65 and extent.max() < 1.0
    assert (slope_x.abs() - slope_y).abs().max() > 0.1, "height and width are drawn apart"


def test_orthochromatic_film_is_blind_to_red() -> None:
    red = torch.zeros(400, 3, 8, 8)
    red[:, 0] = 1
    plain = color.lightness(color.srgb_to_linear(torch.tensor(0.299)))
    darker = film_look(red, draws(400)).mean(dim=(1, 2, 3)) < plain - 10
    assert 0.2 < darker.float().mean() < 0.7


def test_randomness_needs_draws(photos: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="draws"):
        make_batch(photos, 64, film=True)


@pytest.mark.parametrize("size", [(64, 64), (36, 52)])
def test_jpeg_is_libjpegs(size: tuple[int, int]) -> None:
    """At quality 50 the table is used as it stands; libjpeg's integer DCT differs by a code value here and there."""
    grey = make_photo(3, *size)[:, :, 1]
    whole, encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 50])
    assert whole
    theirs = cv2.imdecode(np.frombuffer(io.BytesIO(encoded.tobytes()).read(), np.uint8), cv2.IMREAD_GRAYSCALE)
    mine = jpeg(torch.from_numpy(grey)[None, None].float() / 255, torch.ones(1, 1, 1, 1))[0, 0] * 255
    difference = np.abs(mine.numpy() - theirs)[: size[0] // 8 * 8, : size[1] // 8 * 8]
    assert difference.mean() < 0.6
    assert np.abs(grey.astype(float) - theirs).mean() > 2, "quality 50 must cost something"
