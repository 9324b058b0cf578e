"""Warping error, CDC and the rest, on pictures whose figures are known."""

from __future__ import annotations

import math

import pytest
import torch

from archivecolor.evaluation.steadiness import (
    ClipScores,
    Step,
    colour_distribution,
    jensen_shannon,
    visible,
    warp,
    warping_error,
)


def shift(x: float, y: float, h: int = 32, w: int = 40) -> torch.Tensor:
    """(2, h, w) of a flow that is the same everywhere."""
    return torch.tensor([x, y], dtype=torch.float32).view(2, 1, 1).expand(2, h, w).contiguous()


def everywhere(h: int = 32, w: int = 40) -> torch.Tensor:
    return torch.ones(h, w, dtype=torch.bool)


def test_warping_brings_a_moved_picture_back() -> None:
    picture = torch.rand(3, 32, 40)
    following = torch.roll(picture, (2, -3), dims=(1, 2))
    assert torch.allclose(warp(following, shift(-3, 2))[:, :-2, 3:], picture[:, :-2, 3:], atol=1e-5)


def test_half_a_pixel_lies_between_two() -> None:
    ramp = torch.arange(40.0).expand(1, 32, 40)
    assert torch.allclose(warp(ramp, shift(0.5, 0))[..., :-1], ramp[..., :-1] + 0.5, atol=1e-4)


def test_what_leaves_the_picture_is_not_visible() -> None:
    mask = visible(shift(5, 0), shift(-5, 0))
    assert not mask[:, -5:].any() and mask[:, :-5].all()


def test_what_is_hidden_next_is_not_visible() -> None:
    flow, back = shift(0, 0), shift(0, 0)
    back[0, 8:16, 8:16] = 3  # another thing has come here
    mask = visible(flow, back)
    assert not mask[8:16, 8:16].any() and mask[20:, 20:].all()


def test_borders_of_motion_are_left_out() -> None:
    flow = shift(0, 0)
    flow[0, :, 20:] = 2
    mask = visible(flow, -flow)
    assert not mask[:, 19:21].any() and mask[:, :18].all()


def test_warping_error_counts_visible_pixels_only() -> None:
    picture, following = torch.zeros(2, 32, 40), torch.zeros(2, 32, 40)
    following[0, :16] = 4  # one channel of two differs by 4 in the upper half
    assert warping_error(picture, following, shift(0, 0), everywhere()) == pytest.approx(4)
    upper = everywhere()
    upper[16:] = False
    assert warping_error(picture, following, shift(0, 0), upper) == pytest.approx(8)
    assert warping_error(picture, following, shift(0, 0), ~upper) == 0
    assert math.isnan(warping_error(picture, following, shift(0, 0), ~everywhere()))


def test_divergence_of_distributions() -> None:
    dark, bright = torch.full((3, 8, 8), 10.0), torch.full((3, 8, 8), 200.0)
    half = torch.cat([dark, bright], dim=1)
    p, q, r = map(colour_distribution, (dark, bright, half))
    assert jensen_shannon(p, p) == 0
    assert jensen_shannon(p, q) == pytest.approx(math.log(2))
    # (p + r) / 2 is (3/4, 1/4): half of KL(p) = ln 4/3, plus half of KL(r) = (ln 2/3 + ln 2) / 2
    assert jensen_shannon(p, r) == pytest.approx((math.log(4 / 3) + (math.log(2 / 3) + math.log(2)) / 2) / 2)


def scores_of(frames: list[torch.Tensor], true_ab: torch.Tensor | None = None) -> ClipScores:
    scores = ClipScores()
    for number, rgb in enumerate(frames):
        scores.update(rgb, Step(shift(0, 0), everywhere()) if number else None, true_ab)
    return scores


def test_flicker_costs_and_stillness_does_not() -> None:
    red, blue = torch.full((3, 32, 40), 90.0), torch.full((3, 32, 40), 90.0)
    red[0], blue[2] = 160, 160
    still, flickering = scores_of([red] * 6).summary(), scores_of([red, blue] * 3).summary()
    assert still["warping_error_ab"] == still["warping_error_rgb"] == still["cdc"] == 0
    assert still["l1"] is None
    assert still["colourfulness"] == pytest.approx(flickering["colourfulness"], rel=0.5)
    assert flickering["warping_error_rgb"] == pytest.approx(2 * (70 / 255) ** 2 / 3)
    # one frame apart R and B swap, two and four frames apart they are the same again
    assert flickering["cdc"] == pytest.approx(math.log(2) * 2 / 3 / 3)


def test_nothing_is_compared_across_a_cut() -> None:
    scores = ClipScores()
    for number in range(12):
        rgb = torch.full((3, 32, 40), 40.0 if number < 6 else 220.0)
        rgb[0] += 20 if number < 6 else -60
        scores.update(rgb, None if number in (0, 6) else Step(shift(0, 0), everywhere()))
    assert scores.summary()["warping_error_ab"] == scores.summary()["cdc"] == 0
    assert math.isnan(scores.warping_ab[6])


def test_a_clip_too_short_has_no_cdc() -> None:
    figures = scores_of([torch.rand(3, 32, 40) * 255] * 3).summary()
    assert figures["cdc"] is None and figures["warping_error_ab"] == pytest.approx(0, abs=1e-6)
    assert scores_of([torch.rand(3, 32, 40) * 255]).summary()["warping_error_ab"] is None


def test_l1_is_the_distance_from_the_truth() -> None:
    grey = torch.full((3, 32, 40), 128.0)
    true_ab = torch.cat([torch.full((1, 32, 40), 6.0), torch.full((1, 32, 40), -2.0)])
    assert scores_of([grey] * 2, true_ab).summary()["l1"] == pytest.approx(4, abs=1e-3)
