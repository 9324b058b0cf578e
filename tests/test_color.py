"""Colour science against OpenCV's float32 conversion, known values and round trips."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from archivecolor import color
from archivecolor.matrices import MATRICES


@pytest.fixture
def rgb() -> torch.Tensor:
    """(3, 96, 96) R'G'B' over the whole cube, with its corners and greys."""
    torch.manual_seed(0)
    rgb = torch.rand(3, 96, 96)
    corners = torch.tensor([[r, g, b] for r in (0.0, 1.0) for g in (0.0, 1.0) for b in (0.0, 1.0)]).T
    rgb[:, 0, :8] = corners
    rgb[:, 1] = torch.linspace(0, 1, 96)
    rgb[:, 2] *= 0.05  # the linear parts of both transfer functions
    return rgb


def _cv2_lab(rgb: torch.Tensor, code: int) -> torch.Tensor:
    lab = cv2.cvtColor(np.ascontiguousarray(rgb.permute(1, 2, 0).numpy()), code)
    return torch.from_numpy(lab).permute(2, 0, 1)


def test_rgb_to_lab_is_opencvs(rgb: torch.Tensor) -> None:
    lab = color.rgb_to_lab(rgb)
    # From linear light OpenCV computes each pixel; from sRGB it interpolates in a coarse table of the whole cube.
    exact = (lab - _cv2_lab(color.srgb_to_linear(rgb), cv2.COLOR_LRGB2Lab)).abs()
    assert exact.max() < 0.03 and exact.mean() < 1e-3
    interpolated = (lab - _cv2_lab(rgb, cv2.COLOR_RGB2Lab)).abs()
    assert interpolated.max() < 0.6 and interpolated.mean() < 0.1


def test_lab_to_rgb_is_opencvs(rgb: torch.Tensor) -> None:
    lab = color.rgb_to_lab(rgb)
    theirs = cv2.cvtColor(np.ascontiguousarray(lab.permute(1, 2, 0).numpy()), cv2.COLOR_Lab2RGB)
    difference = (color.lab_to_rgb(lab) - torch.from_numpy(theirs).permute(2, 0, 1)).abs()
    assert difference.max() < 5e-4
    assert difference.mean() < 2e-5


def test_lab_of_known_colours() -> None:
    # CIE Lab of sRGB's primaries under D65, as tabulated by Lindbloom (rounded).
    for encoded, expected in {
        (1.0, 0.0, 0.0): (53.24, 80.09, 67.20),
        (0.0, 1.0, 0.0): (87.73, -86.18, 83.18),
        (0.0, 0.0, 1.0): (32.30, 79.19, -107.86),
        (1.0, 1.0, 1.0): (100.0, 0.0, 0.0),
    }.items():
        lab = color.rgb_to_lab(torch.tensor(encoded).view(3, 1, 1)).flatten()
        torch.testing.assert_close(lab, torch.tensor(expected), atol=0.05, rtol=0)


def test_lab_round_trip(rgb: torch.Tensor) -> None:
    back = color.lab_to_rgb(color.rgb_to_lab(rgb))
    assert (back - rgb).abs().max() < 2e-5
    assert ((back * 255).round() == (rgb * 255).round()).float().mean() > 0.999


def test_every_8_bit_colour_survives_lab() -> None:
    levels = torch.arange(0, 256, 15, dtype=torch.float32)
    cube = torch.cartesian_prod(levels, levels, levels).T.reshape(3, 1, -1) / 255
    assert torch.equal((color.lab_to_rgb(color.rgb_to_lab(cube)) * 255).round(), (cube * 255).round())


def test_greys_have_no_chroma() -> None:
    grey = torch.linspace(0, 1, 256).expand(3, 1, -1)
    assert color.rgb_to_lab(grey)[1:].abs().max() < 5e-5


def test_the_gamut_fits_the_networks_range() -> None:
    levels = torch.linspace(0, 1, 18)
    cube = torch.cartesian_prod(levels, levels, levels).T.reshape(3, 1, -1)
    assert color.normalise_ab(color.rgb_to_lab(cube)[1:]).abs().max() < 1


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bit_depth", [8, 9, 10, 12, 14, 16])
def test_lightness_table(bit_depth: int, full_range: bool) -> None:
    table = color.lightness_table(bit_depth, full_range)
    black, white = color.code_range(bit_depth, full_range)
    assert table.shape == (2**bit_depth,) and table.dtype == torch.float32
    assert (black, white) == (
        (0, 2**bit_depth - 1) if full_range else (16 * 2 ** (bit_depth - 8), 235 * 2 ** (bit_depth - 8))
    )
    assert torch.all(table[: black + 1] == 0)
    assert torch.all(table[white:] == 100)
    assert torch.all(table[black : white + 1].diff() > 0)
    # A grey film's luma stands for equal R', G', B': its lightness is that of the grey colour.
    codes = torch.linspace(black, white, 50).round().long()
    grey = ((codes - black) / (white - black)).float().expand(3, 1, -1)
    torch.testing.assert_close(table[codes], color.rgb_to_lab(grey)[0, 0], atol=2e-4, rtol=0)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bit_depth", [8, 10, 16])
def test_luma_comes_back_from_lightness(bit_depth: int, full_range: bool) -> None:
    black, white = color.code_range(bit_depth, full_range)
    codes = torch.arange(black, white + 1, max(1, 2 ** (bit_depth - 10)))
    luma = color.lightness_to_luma(color.lightness_table(bit_depth, full_range)[codes], bit_depth, full_range)
    assert torch.equal(luma.round().long(), codes)


@pytest.mark.parametrize(
    ("matrix", "red", "green", "blue"),
    [  # 8-bit limited-range Y', Cb, Cr of the 100 % colour bars (ITU-R BT.601-7, BT.709-6)
        ("smpte170m", (81, 90, 240), (145, 54, 34), (41, 240, 110)),
        ("bt709", (63, 102, 240), (173, 42, 26), (32, 240, 118)),
    ],
)
def test_ycbcr_of_colour_bars(matrix: str, red: tuple[int, ...], green: tuple[int, ...], blue: tuple[int, ...]) -> None:
    for rgb, expected in {(1.0, 0.0, 0.0): red, (0.0, 1.0, 0.0): green, (0.0, 0.0, 1.0): blue}.items():
        y, cb, cr = color.rgb_to_ycbcr(torch.tensor(rgb).view(3, 1, 1), matrix).flatten().tolist()
        assert (round(16 + 219 * y), round(128 + 224 * cb), round(128 + 224 * cr)) == expected


@pytest.mark.parametrize("matrix", sorted(MATRICES))
def test_ycbcr_round_trip(matrix: str, rgb: torch.Tensor) -> None:
    ycbcr = color.rgb_to_ycbcr(rgb, matrix)
    assert (color.ycbcr_to_rgb(ycbcr, matrix) - rgb).abs().max() < 2e-6
    assert ycbcr[1:].abs().max() <= 0.5 + 1e-6
    grey = color.rgb_to_ycbcr(torch.full((3, 1, 1), 0.3), matrix).flatten()
    torch.testing.assert_close(grey, torch.tensor([0.3, 0.0, 0.0]), atol=1e-6, rtol=0)


def test_transfer_functions_are_inverse_and_continuous() -> None:
    encoded = torch.linspace(0, 1, 4001, dtype=torch.float64)
    linear = color.srgb_to_linear(encoded)
    assert (color.linear_to_srgb(linear) - encoded).abs().max() < 1e-7
    assert (color.luminance(color.lightness(linear)) - linear).abs().max() < 1e-9
    assert torch.all(linear.diff() > 0) and linear.diff().max() < 1e-3


def test_normalised_values() -> None:
    torch.testing.assert_close(color.normalise_l(torch.tensor([0.0, 50.0, 100.0])), torch.tensor([-1.0, 0.0, 1.0]))
    ab = torch.tensor([-110.0, 0.0, 55.0])
    torch.testing.assert_close(color.normalise_ab(ab), torch.tensor([-1.0, 0.0, 0.5]))
    torch.testing.assert_close(color.denormalise_ab(color.normalise_ab(ab)), ab)
