"""Lightness and colour joined: against the plain conversion, in and out of mattes, in every subsampling and depth."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from archivecolor import color
from archivecolor.colorize.mattes import Rectangle
from archivecolor.colorize.recombine import (
    _LAB_XYZ_TO_RGB,
    PlaneFormat,
    Recombiner,
    _encode,
    _lab_to_linear,
    _ycbcr_matrix,
)

CPU = torch.device("cpu")


def recombiner(out: PlaneFormat, mode: str = "lab") -> Recombiner:
    return Recombiner(bit_depth=out.bit_depth, full_range=out.full_range, out=out, mode=mode, device=CPU)  # type: ignore[arg-type]


def decode(y: torch.Tensor, cb: torch.Tensor, cr: torch.Tensor, out: PlaneFormat) -> torch.Tensor:
    """R'G'B' of 4:4:4 planes."""
    black, white = color.code_range(out.bit_depth, out.full_range)
    scale = (1 << out.bit_depth) - 1 if out.full_range else 224 << (out.bit_depth - 8)
    middle = 1 << (out.bit_depth - 1)
    planes = [(y.float() - black) / (white - black), (cb.float() - middle) / scale, (cr.float() - middle) / scale]
    return color.ycbcr_to_rgb(torch.stack(planes, dim=1), out.matrix)


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m", "bt2020nc"])
@pytest.mark.parametrize(("depth", "full_range"), [(8, False), (8, True), (10, False), (16, True)])
def test_lab_keeps_lightness_and_takes_the_colour(matrix: str, depth: int, full_range: bool) -> None:
    out = PlaneFormat(depth, full_range, matrix, 0, 0)
    black, white = color.code_range(depth, full_range)
    low, high = black + (white - black) * 3 // 10, black + (white - black) * 7 // 10
    luma = torch.randint(low, high, (2, 24, 40), generator=torch.Generator().manual_seed(0))
    ab = torch.tensor([18.0, -22.0]).view(1, 2, 1, 1).expand(2, 2, 6, 10)
    join = recombiner(out)
    L = join.lightness(luma)
    lab = color.rgb_to_lab(decode(*join(luma, ab), out))
    tolerance = 0.6 if depth == 8 else 0.2
    assert (lab[:, :1] - L).abs().max() < tolerance
    assert (lab[:, 1:] - torch.tensor([18.0, -22.0]).view(1, 2, 1, 1)).abs().max() < 2.5 * tolerance


def test_no_colour_gives_the_grey_back() -> None:
    out = PlaneFormat(8, False, "smpte170m", 1, 1)
    luma = torch.arange(16, 236, dtype=torch.uint8).view(1, 10, 22)
    join = recombiner(out)
    y, cb, cr = join(luma, torch.zeros(1, 2, 4, 4))
    assert torch.equal(y, luma)
    assert cb.eq(128).all() and cr.eq(128).all()


def test_luma_mode_passes_every_code_value_through() -> None:
    out = PlaneFormat(10, False, "bt709", 1, 1)
    luma = torch.arange(0, 1024, dtype=torch.int32).view(1, 32, 32)
    join = recombiner(out, "luma")
    y, cb, _ = join(luma, torch.full((1, 2, 8, 8), 30.0))
    assert torch.equal(y, luma)
    assert cb.shape == (1, 16, 16)
    assert cb.ne(512).any()


@pytest.mark.parametrize(("log2_w", "log2_h"), [(1, 1), (1, 0), (0, 0), (2, 0), (2, 2)])
def test_odd_sizes_round_chroma_up(log2_w: int, log2_h: int) -> None:
    out = PlaneFormat(8, False, "bt709", log2_w, log2_h)
    luma = torch.full((1, 33, 47), 120, dtype=torch.uint8)
    join = recombiner(out)
    y, cb, cr = join(luma, torch.full((1, 2, 5, 5), 25.0))
    assert y.shape == (1, 33, 47)
    assert cb.shape == cr.shape == (1, -(-33 >> log2_h), -(-47 >> log2_w))
    assert (cr.float() - cr.float().mean()).abs().max() < 1  # a flat field stays flat to its edges


def test_bars_stay_neutral_and_the_picture_is_coloured_to_its_edge() -> None:
    out = PlaneFormat(8, False, "bt709", 1, 1)
    luma = torch.full((1, 64, 96), 16, dtype=torch.uint8)
    picture = Rectangle(8, 56, 16, 80)
    luma[:, 8:56, 16:80] = 130
    join = recombiner(out)
    y, _, cr = join(luma, torch.full((1, 2, 8, 8), 40.0), picture)
    assert y[:, :8].eq(16).all() and y[:, :, :16].eq(16).all()
    assert cr[:, :4].eq(128).all() and cr[:, 28:].eq(128).all()
    assert cr[:, :, :8].eq(128).all() and cr[:, :, 40:].eq(128).all()
    assert cr[:, 4:28, 9:40].gt(140).all()  # column 8 lies half in the bar, as H.264 sites chroma


def test_colours_outside_the_gamut_are_clipped_not_wrapped() -> None:
    out = PlaneFormat(8, True, "bt709", 0, 0)
    luma = torch.tensor([[[0, 10, 245, 255]]], dtype=torch.uint8)
    join = recombiner(out)
    rgb = decode(*join(luma, torch.full((1, 2, 1, 4), 100.0)), out)
    assert rgb.min() > -0.02
    assert rgb.max() < 1.02


def test_keeping_luma_needs_the_same_depth_and_range() -> None:
    with pytest.raises(ValueError, match="bit depth and range"):
        Recombiner(bit_depth=10, full_range=False, out=PlaneFormat(8, False, "bt709", 1, 1), mode="luma", device=CPU)


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
def test_the_fast_conversion_is_the_plain_one(matrix: str) -> None:
    random = torch.Generator().manual_seed(3)
    L = torch.rand(2, 1, 200, 300, generator=random) * 100
    ab = (torch.rand(2, 2, 200, 300, generator=random) - 0.5) * 200  # far out of gamut, too
    plain = color.rgb_to_ycbcr(color.lab_to_rgb(torch.cat([L, ab], dim=1)), matrix)
    to_linear, to_ycbcr = torch.tensor(_LAB_XYZ_TO_RGB), _ycbcr_matrix(matrix)
    fast = [_encode(_lab_to_linear(L[i, 0], ab[i], to_linear), to_ycbcr).view(3, 200, 300) for i in range(2)]
    assert (torch.stack(fast) - plain).abs().max() < 2e-5


@pytest.mark.parametrize("depth", [8, 10])  # by table, by arithmetic
@pytest.mark.parametrize("grain", [0, 4, 60])
@pytest.mark.parametrize(("log2_w", "log2_h"), [(1, 1), (1, 0), (2, 2)])
def test_blocks_that_share_a_chroma_sample_keep_every_pixels_lightness(
    log2_w: int, log2_h: int, grain: int, depth: int
) -> None:
    """Against converting each pixel: smooth, grainy, and as contrasty as a picture can be."""
    random = torch.Generator().manual_seed(5)
    luma = torch.linspace(30, 220, 64).view(1, 1, 64).expand(1, 48, 64)
    luma = (luma + grain * torch.randn(1, 48, 64, generator=random)).round().clamp(16, 235).int() << depth - 8
    luma = luma.to(torch.uint8) if depth == 8 else luma
    ab = torch.tensor([25.0, 30.0]).view(1, 2, 1, 1).expand(1, 2, 12, 16)
    shared, own = (recombiner(PlaneFormat(depth, False, "bt709", *log2)) for log2 in ((log2_w, log2_h), (0, 0)))
    difference = (shared(luma, ab)[0].float() - own(luma, ab)[0].float()).abs() / (1 << depth - 8)
    assert difference.max() <= 6
    assert difference.mean() < 0.25


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("mode", ["lab", "luma"])
@pytest.mark.parametrize(("log2_w", "log2_h"), [(0, 0), (1, 0), (1, 1)])
def test_the_table_is_the_arithmetic(log2_w: int, log2_h: int, mode: str, full_range: bool) -> None:
    random = torch.Generator().manual_seed(7)
    luma = torch.randint(0, 256, (2, 40, 96), generator=random, dtype=torch.uint8)
    ab = torch.randn(2, 2, 10, 12, generator=random) * torch.tensor([15.0, 60.0]).view(2, 1, 1, 1)
    by_table = recombiner(PlaneFormat(8, full_range, "bt709", log2_w, log2_h), mode)
    computed = recombiner(PlaneFormat(8, full_range, "bt709", log2_w, log2_h), mode)
    computed._table, computed._converts_each_pixel = None, True
    for plane, expected in zip(by_table(luma, ab), computed(luma, ab), strict=True):
        difference = (plane.float() - expected.float())[0].abs()
        assert difference.max() <= 3  # at codes near black
        assert difference.mean() < 0.2


def test_cells_of_the_table_may_be_filled_in_by_several_threads() -> None:
    random = torch.Generator().manual_seed(9)
    luma = torch.randint(16, 236, (16, 24, 40), generator=random, dtype=torch.uint8)
    ab = torch.randn(16, 2, 24, 40, generator=random) * 20
    join = recombiner(PlaneFormat(8, False, "bt709", 0, 0))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: join(luma[i : i + 1], ab[i : i + 1]), range(16)))
    alone = recombiner(PlaneFormat(8, False, "bt709", 0, 0))
    for i, planes in enumerate(together):
        assert all(map(torch.equal, planes, alone(luma[i : i + 1], ab[i : i + 1])))


def test_what_a_gpu_does_is_the_exact_conversion() -> None:
    random = torch.Generator().manual_seed(5)
    luma = torch.randint(90, 130, (2, 32, 48), generator=random, dtype=torch.uint8)
    ab = torch.tensor([25.0, 30.0]).view(1, 2, 1, 1).expand(2, 2, 8, 8)
    shared, own = (recombiner(PlaneFormat(8, False, "bt709", *log2)) for log2 in ((1, 1), (0, 0)))
    on_cpu = shared(luma, ab)
    shared._table, shared._converts_each_pixel = None, True
    y, cb, cr = shared(luma, ab)
    assert torch.equal(y, own(luma, ab)[0])
    assert (cb.float() - on_cpu[1].float()).abs().mean() < 2 and (cr.float() - on_cpu[2].float()).abs().mean() < 2
