"""Colour that is steady, follows the motion, and knows where a shot ends."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch

from archivecolor.colorize.motion import find_links, glimpse
from archivecolor.colorize.temporal import BLOCK, LONGEST_FLASH, LOOK_AHEAD, Steadier
from archivecolor.colorize.warping import warps_of
from tests.colorize.moving import SIDE_PX, moved, texture, worn

SIZE = (SIDE_PX, SIDE_PX)


def steady(
    lightness: Sequence[np.ndarray],
    ab: torch.Tensor,
    *,
    strength: float = 0.9,
    batch: int = 4,
    formats: Sequence[object] | None = None,
) -> tuple[torch.Tensor, Steadier]:
    formats = formats or [None] * len(lightness)
    seen = [glimpse(L, kind) for L, kind in zip(lightness, formats, strict=True)]
    warps = warps_of(find_links(None, seen), SIZE, ab.device)
    steadier = Steadier(strength)
    out: list[torch.Tensor] = []
    for start in range(0, len(seen), batch):
        some = slice(start, start + batch)
        out += steadier.push(ab[some], seen[some], warps[some])
        assert len(out) >= min(start + batch, len(seen)) - BLOCK - LOOK_AHEAD - LONGEST_FLASH
    out += steadier.flush()
    return torch.stack(out), steadier


def scene_colour(a: float = 20.0, b: float = 30.0) -> torch.Tensor:
    """(2, h, w): warm, with a blue right half."""
    ab = torch.empty(2, *SIZE)
    ab[0], ab[1] = a, b
    ab[1, :, SIDE_PX // 2 :] = -b
    return ab


def blotches(rng: np.random.Generator, strength: float = 6.0) -> torch.Tensor:
    """(2, h, w): what a network adds to one frame and not to the next."""
    noise = np.stack([cv2.GaussianBlur(rng.standard_normal(SIZE), (0, 0), 4) for _ in range(2)])
    return torch.from_numpy(strength * noise / noise.std()).float()


def step(ab: torch.Tensor) -> torch.Tensor:
    """|change| of a and b from frame to frame."""
    return (ab[1:] - ab[:-1]).abs()


def test_a_still_grainy_shot_keeps_its_colour() -> None:
    rng, scene = np.random.default_rng(0), texture(1)
    frames = [np.clip(scene + 8 * rng.standard_normal(SIZE), 0, 100).astype(np.float32) for _ in range(40)]
    ab = torch.stack([scene_colour() + blotches(rng, 5) for _ in frames])
    out, _ = steady(frames, ab)
    assert step(ab).mean() > 5
    assert step(out).mean() < 0.2
    assert torch.quantile(step(out).flatten()[::7], 0.99) < 0.7


def test_wear_does_not_shake_the_colour() -> None:
    rng, scene = np.random.default_rng(0), texture(1)
    frames = [worn(moved(scene, *rng.normal(0, 0.7, 2)), rng) for _ in range(40)]
    ab = torch.stack([scene_colour() + blotches(rng) for _ in frames])
    out, steadier = steady(frames, ab)
    assert steadier.shots == 1
    assert step(out).mean() < step(ab).mean() / 4


def test_a_long_still_shot_neither_fades_nor_drifts() -> None:
    rng, scene = np.random.default_rng(0), texture(1)
    ab = torch.stack([scene_colour() + blotches(rng, 3) for _ in range(120)])
    out, steadier = steady([scene] * 120, ab)
    assert steadier.shots == 1
    left, right = out[..., : SIDE_PX // 2 - 8], out[..., SIDE_PX // 2 + 8 :]
    for part, expected in ((left, (20, 30)), (right, (20, -30))):
        for channel, value in enumerate(expected):
            assert abs(part[-20:, channel].mean() - value) < 1
            assert abs(part[-20:, channel].mean() - part[20:40, channel].mean()) < 0.5
    assert torch.allclose(out[-20:].square().mean(), ab[-20:].square().mean(), rtol=0.05)


@pytest.mark.parametrize("cut", [5, 16, 17, 23])
def test_a_cut_leaves_no_ghost(cut: int) -> None:
    one, other = texture(1), texture(2)
    frames = [moved(one, n, 0) for n in range(cut)] + [moved(other, 0, n) for n in range(20)]
    red, blue = torch.zeros(2, *SIZE), torch.zeros(2, *SIZE)
    red[0], blue[1] = 60, -60
    ab = torch.stack([red] * cut + [blue] * 20)
    out, steadier = steady(frames, ab)
    assert steadier.shots == 2
    assert (out - ab).abs().max() < 1e-3


def test_two_cuts_in_a_row_make_three_shots() -> None:
    frames = [texture(1)] * 6 + [texture(2)] * 4 + [texture(3)] * 6
    ab = torch.stack([torch.full((2, *SIZE), value) for value in [10.0] * 6 + [-20.0] * 4 + [30.0] * 6])
    out, steadier = steady(frames, ab)
    assert steadier.shots == 3
    assert (out - ab).abs().max() < 1e-3


def test_a_flash_does_not_part_a_shot() -> None:
    rng, scene = np.random.default_rng(0), texture(1)
    frames = [scene] * 30
    frames[12] = np.full(SIZE, 100, np.float32)
    frames[13] = np.zeros(SIZE, np.float32)
    ab = torch.stack([scene_colour() + blotches(rng) for _ in frames])
    ab[12:14] = 0
    out, steadier = steady(frames, ab)
    assert steadier.shots == 1
    assert torch.equal(out[12:14], ab[12:14])
    assert (out[14] - out[11]).abs().mean() < 1


def test_a_fade_is_no_cut() -> None:
    scene = texture(1)
    fade = [scene * share for share in np.linspace(1, 0.2, 12, dtype=np.float32)]
    _, steadier = steady([scene] * 5 + fade + fade[::-1] + [scene] * 5, torch.zeros(34, 2, *SIZE))
    assert steadier.shots == 1


def test_what_comes_out_does_not_depend_on_the_batches() -> None:
    rng, scene, other = np.random.default_rng(0), texture(1), texture(2)
    frames = [moved(scene, n, 0) for n in range(27)] + [moved(other, n, 0) for n in range(12)]
    ab = torch.stack([scene_colour() + blotches(rng) for _ in frames])
    expected, _ = steady(frames, ab, batch=1)
    for batch in (5, 8, 39):
        assert torch.equal(steady(frames, ab, batch=batch)[0], expected)


def test_colour_goes_along_with_what_it_belongs_to() -> None:
    rng, scene = np.random.default_rng(0), texture(1)
    spot = np.zeros(SIZE, np.float32)
    spot[40:80, 20:50] = 50
    frames = [moved(scene, 2.5 * n, 0) for n in range(24)]
    true = torch.stack([torch.from_numpy(np.stack([moved(spot, 2.5 * n, 0)] * 2)) for n in range(24)])
    ab = true + torch.stack([blotches(rng) for _ in frames])
    out, _ = steady(frames, ab)
    assert (out - true)[4:-4].abs().mean() < 0.5 * (ab - true)[4:-4].abs().mean()


def test_averaging_takes_no_colour_away() -> None:
    rng, scene = np.random.default_rng(0), texture(1)
    ab = torch.stack([scene_colour(5, 8) + blotches(rng, 10) for _ in range(40)])
    out, _ = steady([scene] * 40, ab)
    assert out.std() > 0.8 * ab.std()


def test_frames_of_another_format_are_not_mixed_in() -> None:
    scene = texture(1)
    ab = torch.stack([torch.full((2, *SIZE), value) for value in [10.0] * 8 + [-20.0] * 8])
    out, _ = steady([scene] * 16, ab, formats=["bars"] * 8 + ["whole"] * 8)
    assert torch.allclose(out, ab, atol=1e-4)


def test_a_strength_of_nothing_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    ab = torch.stack([scene_colour() + blotches(rng) for _ in range(6)])
    out, _ = steady([texture(1)] * 6, ab, strength=0.0)
    assert torch.allclose(out, ab, atol=1e-3)


def level(lightness: Sequence[np.ndarray], ab: torch.Tensor, *, strength: float = 0.9) -> torch.Tensor:
    seen = [glimpse(L) for L in lightness]
    warps = warps_of(find_links(None, seen), SIZE, ab.device)
    leveller = Steadier(strength, level=True)
    return torch.stack([*leveller.push(ab, seen, warps), *leveller.flush()])


def test_a_level_shot_drifts_neither_in_tint_nor_in_strength() -> None:
    rng, scene = np.random.default_rng(0), texture(1)
    drift = torch.linspace(0, 1, 80).view(80, 1, 1, 1)
    tint = torch.tensor([10.0, -8.0]).view(1, 2, 1, 1)
    ab = torch.stack([scene_colour(0, 20) + blotches(rng, 2) for _ in range(80)]) * (1 - 0.3 * drift) + tint * drift
    unlevelled, out = steady([scene] * 80, ab)[0], level([scene] * 80, ab)
    assert (unlevelled[-1] - unlevelled[0]).abs().mean() > 6
    assert (out[-1] - out[0]).abs().mean() < 1.5
    assert torch.allclose(out[0], unlevelled[0], atol=1e-3)


def pan() -> tuple[list[np.ndarray], torch.Tensor]:
    """Frames and ab of a camera that turns from a red part of a scene to a blue one."""
    wide = texture(1, 2 * SIDE_PX)[:SIDE_PX]
    colours = torch.zeros(2, *wide.shape)
    colours[0, :, :SIDE_PX], colours[1, :, SIDE_PX:] = 30, -40
    starts = [round(n * SIDE_PX / 60) for n in range(61)]
    frames = [np.ascontiguousarray(wide[:, x : x + SIDE_PX]) for x in starts]
    return frames, torch.stack([colours[..., x : x + SIDE_PX] for x in starts])


def test_a_pan_ends_on_the_colours_that_are_there() -> None:
    frames, ab = pan()
    assert (steady(frames, ab)[0] - ab).abs().mean() < 0.5
    assert (level(frames, ab) - ab).abs().mean() < 1


def test_levelling_a_long_shot_takes_no_colour_away() -> None:
    rng, scene, fine = np.random.default_rng(0), texture(1), (texture(4) - 50) / 2
    ways = [(6 * np.sin(n / 9), 4 * np.sin(n / 7)) for n in range(150)]
    frames = [moved(scene, *way) for way in ways]
    ab = torch.stack([torch.from_numpy(np.stack([moved(fine, *way)] * 2)) + blotches(rng, 2) for way in ways])
    unlevelled, out = steady(frames, ab)[0], level(frames, ab)
    assert abs(out[-20:].std() / unlevelled[-20:].std() - 1) < 0.05
    assert (out - unlevelled)[-20:].mean().abs() < 0.5


def test_each_shot_is_levelled_by_itself() -> None:
    frames = [texture(1)] * 20 + [texture(2)] * 20
    ab = torch.stack([torch.full((2, *SIZE), value) for value in [10.0] * 20 + [-20.0] * 20])
    assert torch.allclose(level(frames, ab), ab, atol=1e-2)


def steady_but(
    carried: Sequence[int], lightness: Sequence[np.ndarray], ab: torch.Tensor, batch: int = 5
) -> torch.Tensor:
    """`steady`, of ab that says nothing of some frames."""
    seen = [glimpse(L) for L in lightness]
    warps = warps_of(find_links(None, seen), SIZE, ab.device)
    is_carried = [number in carried for number in range(len(seen))]
    ab = ab.clone()
    ab[is_carried] = 0
    steadier = Steadier(0.9)
    out = [
        frame
        for start in range(0, len(seen), batch)
        for some in [slice(start, start + batch)]
        for frame in steadier.push(ab[some], seen[some], warps[some], is_carried[some])
    ]
    return torch.stack([*out, *steadier.flush()])


def test_frames_without_colours_have_those_of_their_neighbours() -> None:
    rng, scene, fine = np.random.default_rng(0), texture(1), texture(4) - 50
    ways = [(2.5 * n, 1.5 * n) for n in range(30)]
    frames = [moved(scene, *way) for way in ways]
    true = torch.stack([torch.from_numpy(np.stack([moved(fine, *way)] * 2)) for way in ways])
    ab = true + torch.stack([blotches(rng, 3) for _ in frames])
    out = steady_but(range(1, 30, 2), frames, ab)
    every = steady(frames, ab)[0]
    assert (out - true)[4:-4].abs().mean() < 1.15 * (every - true)[4:-4].abs().mean()
    assert abs(out.std() / every.std() - 1) < 0.03
    assert torch.equal(out, steady_but(range(1, 30, 2), frames, ab, batch=30))


def test_what_motion_does_not_explain_of_a_frame_without_colours_still_has_some() -> None:
    frames = [texture(1)] * 9
    frames[5] = frames[5].copy()
    frames[5][40:70, 40:70] = texture(2)[40:70, 40:70]
    ab = torch.stack([scene_colour()] * 9)
    assert (steady_but([5], frames, ab) - ab)[5].abs().max() < 1


def test_a_cut_behind_frames_without_colours_leaves_no_ghost() -> None:
    frames = [texture(1)] * 12 + [texture(2)] * 12
    ab = torch.stack([torch.full((2, *SIZE), value) for value in [30.0] * 12 + [-20.0] * 12])
    assert (steady_but([1, 3, 11, 13, 23], frames, ab) - ab).abs().max() < 1e-3
