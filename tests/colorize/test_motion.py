"""Flow between frames, how far it is trusted, and where a shot ends."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from archivecolor.colorize.motion import SAME_SHOT, Link, camera_motion, find_motion, glimpse
from tests.colorize.moving import SIDE_PX, moved, texture, worn

SIZE = (SIDE_PX, SIDE_PX)


def link(earlier: np.ndarray, later: np.ndarray) -> Link:
    found = find_motion(glimpse(earlier), glimpse(later))
    assert found is not None
    return found


def shift_px(flow: np.ndarray) -> np.ndarray:
    """Displacements in pixels of a frame."""
    return flow * (SIDE_PX / 2)


def of(flow: np.ndarray, y: slice, x: slice) -> np.ndarray:
    """The part of a link's plane that shows these rows and columns of the frames."""
    scale_y, scale_x = (side / SIDE_PX for side in flow.shape[:2])
    return flow[round(y.start * scale_y) : round(y.stop * scale_y), round(x.start * scale_x) : round(x.stop * scale_x)]


def test_a_shift_is_found_both_ways() -> None:
    scene = texture(1)
    found = link(scene, moved(scene, 3, -2))
    expected, inside = np.array([3, -2]), (slice(16, 112), slice(16, 112))
    assert np.abs(of(shift_px(found.back), *inside) - -expected).mean() < 0.5
    assert np.abs(of(shift_px(found.ahead), *inside) - expected).mean() < 0.5
    assert of(found.trust_back, *inside).mean() > 0.8
    assert found.trust_back.shape == found.trust_ahead.shape == glimpse(scene).small.shape


def test_a_still_picture_does_not_tremble_under_grain() -> None:
    rng, scene = np.random.default_rng(0), texture(1)
    first, second = (np.clip(scene + 6 * rng.standard_normal(SIZE), 0, 100).astype(np.float32) for _ in range(2))
    found = link(first, second)
    assert np.percentile(np.abs(shift_px(found.back)), 95) < 0.1


def test_what_was_hidden_is_not_trusted() -> None:
    behind, front = texture(1), texture(2)[:48, :48]
    earlier, later = behind.copy(), behind.copy()
    earlier[40:88, 20:68] = front
    later[40:88, 28:76] = front
    found = link(earlier, later)
    assert of(found.trust_back, slice(46, 82), slice(21, 27)).mean() < 0.3  # uncovered
    assert of(found.trust_back, slice(46, 82), slice(36, 68)).mean() > 0.8  # what moved
    assert of(found.trust_back, slice(0, 30), slice(0, 128)).mean() > 0.9  # what did not


def test_water_is_trusted_though_flow_there_and_back_disagree_a_little() -> None:
    scene = texture(1)
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX].astype(np.float32)

    def wave(phase: float) -> np.ndarray:
        to_x, to_y = x + 6 * np.sin(y / 9 + phase), y + 6 * np.sin(x / 12 + 1.3 * phase)
        return cv2.remap(scene, to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    found = link(wave(0), wave(1))
    assert found.trust_back.mean() > 0.75


def test_the_camera_is_found_behind_a_moving_object() -> None:
    y, x = np.mgrid[0:128, 0:128].astype(np.float32)
    flow = np.stack([1.5 + 0.01 * (x - 64), 0.5 + 0.01 * (y - 64)], axis=-1)
    seen = flow.copy()
    seen[30:70, 30:80] += 6
    assert np.abs(camera_motion(seen) - flow).max() < 0.05


@pytest.mark.parametrize("seed", range(12))
def test_cuts_end_a_shot_and_wear_does_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene, other = texture(seed), texture(seed + 100)
    next_frame = moved(scene, 4, 1)
    assert link(scene, next_frame).in_one_shot
    assert link(worn(scene, rng), worn(next_frame, rng)).in_one_shot
    assert link(scene, np.clip(next_frame + 30, 0, 100)).in_one_shot  # a flash that leaves something to be seen
    assert not link(scene, other).in_one_shot
    assert not link(worn(scene, rng), worn(other, rng)).in_one_shot


def test_black_frames_are_alike() -> None:
    black = np.zeros(SIZE, np.float32)
    assert link(black, black + 0.1).likeness >= SAME_SHOT


def test_frames_of_different_formats_have_no_motion_between_them() -> None:
    scene = texture(1)
    assert find_motion(glimpse(scene, "whole"), glimpse(scene, "inside the bars")) is None
