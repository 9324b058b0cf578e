"""The measures against plain computations and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from archivecolor import color
from archivecolor.evaluation.metrics import (
    Scores,
    ab_histogram,
    colourfulness,
    histogram_intersection,
    l1_ab,
    psnr_ab,
    psnr_rgb,
    through_srgb,
)


def lab_of(*rgb: float, n: int = 1, size: int = 8) -> torch.Tensor:
    """(n, 3, size, size) Lab of one R'G'B' 0..255 colour."""
    return color.rgb_to_lab(torch.tensor(rgb).view(1, 3, 1, 1).expand(n, 3, size, size) / 255)


def test_l1_and_psnr_are_over_a_and_b_only() -> None:
    true = torch.zeros(2, 3, 4, 4)
    other = true.clone()
    other[:, 0] = 50  # lightness does not count
    other[0, 1], other[0, 2] = 6, -2
    assert l1_ab(other, true).tolist() == [4, 0]
    assert psnr_ab(other, true)[0].item() == pytest.approx(20 * math.log10(255 / math.sqrt(20)))


def test_rgb_psnr() -> None:
    assert psnr_rgb(torch.full((1, 3, 2, 2), 10.0), torch.zeros(1, 3, 2, 2)).item() == pytest.approx(
        20 * math.log10(25.5)
    )


def test_mean_of_psnrs_is_not_psnr_of_the_mean() -> None:
    scores = Scores()
    true = lab_of(120, 120, 120, n=2)
    other = true.clone()
    other[0, 1:] += 20
    other[1, 1:] += 5
    scores.update(other, true)
    shown, _ = through_srgb(other)
    each = psnr_ab(shown, through_srgb(true)[0])
    assert scores.summary()["psnr_db"] == pytest.approx(each.mean().item(), rel=1e-6)


def test_both_sides_go_through_8_bit_srgb() -> None:
    """Chroma that no display can show is clipped first, so that it neither helps nor harms."""
    red = lab_of(255, 0, 0)
    beyond = red.clone()
    beyond[:, 1:] *= 1.3
    shown, rgb = through_srgb(beyond)
    assert rgb.min() >= 0 and rgb.max() <= 255 and torch.equal(rgb, rgb.round())
    assert (shown - beyond).abs().max() > 10
    scores = Scores()
    scores.update(red, red)
    assert scores.summary()["l1"] == 0


@pytest.mark.parametrize("variant", ["signed", "absolute"])
def test_colourfulness_is_hasler_and_suesstrunks(variant: str) -> None:
    rgb = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 20, 30))).float()
    for image, value in zip(rgb.numpy().astype(np.float64), colourfulness(rgb, variant), strict=True):  # type: ignore[arg-type]
        rg, yb = image[0] - image[1], 0.5 * (image[0] + image[1]) - image[2]
        if variant == "absolute":
            rg, yb = np.abs(rg), np.abs(yb)
        expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
        assert value.item() == pytest.approx(expected, rel=1e-5)


def test_absolute_colourfulness_is_lower_where_hues_oppose() -> None:
    rgb = torch.zeros(1, 3, 4, 4)
    rgb[:, 0, :2], rgb[:, 1, 2:] = 200, 200  # red above, green below
    assert colourfulness(rgb, "absolute") < colourfulness(rgb) / 2
    assert colourfulness(torch.full((1, 3, 4, 4), 77.0)).item() == 0


def test_histogram_bins() -> None:
    lab = torch.zeros(1, 3, 1, 4)
    lab[0, 1, 0] = torch.tensor([-110.0, -0.5, 0.0, 108.9])
    lab[0, 2, 0] = torch.tensor([-500.0, 0.99, 0.99, 500.0])
    histogram = ab_histogram(lab)
    assert histogram.shape == (2, 219)
    assert {int(i): int(histogram[0, i]) for i in histogram[0].nonzero()} == {0: 1, 109: 1, 110: 1, 218: 1}
    assert {int(i): int(histogram[1, i]) for i in histogram[1].nonzero()} == {0: 1, 110: 2, 218: 1}


def test_histogram_intersection() -> None:
    p, q = torch.zeros(2, 219), torch.zeros(2, 219)
    p[:, 10], q[:, 10], q[:, 20] = 100, 1, 3
    assert histogram_intersection(p, p) == pytest.approx(1)
    assert histogram_intersection(p, q) == pytest.approx(0.25)
    assert histogram_intersection(p, q.roll(50, dims=1)) == 0


def test_summary_does_not_depend_on_the_batches() -> None:
    torch.manual_seed(0)
    true = color.rgb_to_lab(torch.rand(6, 3, 8, 8))
    other = true.clone()
    other[:, 1:] *= 0.5
    whole, parts = Scores(), Scores()
    whole.update(other, true)
    for i in (0, 1, 4):
        parts.update(other[i : {0: 1, 1: 4, 4: 6}[i]], true[i : {0: 1, 1: 4, 4: 6}[i]])
    assert parts.summary() == pytest.approx(whole.summary())
    assert whole.summary()["colourfulness_ratio"] == pytest.approx(0.5, abs=0.1)
    assert Scores().summary() == {"images": 0}
