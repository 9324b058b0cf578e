"""Black bars are found, and dark scenes are not taken for them."""

from __future__ import annotations

import numpy as np
import pytest

from archivecolor.colorize.mattes import Rectangle, find_picture

H, W = 120, 160


def frames(rectangle: Rectangle, count: int = 4, *, noise: float = 1.0, level: float = 120) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    made = []
    for _ in range(count):
        frame = 16 + random.normal(0, noise, (H, W))
        picture = random.normal(level, 40, (rectangle.height_px, rectangle.width_px))
        frame[rectangle.top : rectangle.bottom, rectangle.left : rectangle.right] = picture
        made.append(frame.clip(0, 255).astype(np.uint8))
    return made


@pytest.mark.parametrize(
    "rectangle",
    [
        Rectangle(0, H, 20, W - 20),
        Rectangle(15, H - 15, 0, W),
        Rectangle(10, H - 14, 12, W - 18),
        Rectangle(0, H, 0, W),
    ],
    ids=["pillarbox", "letterbox", "window", "none"],
)
def test_bars_are_found_to_the_pixel(rectangle: Rectangle) -> None:
    assert find_picture(frames(rectangle), black=16, white=235) == rectangle


def test_a_dark_scene_does_not_make_a_bar() -> None:
    bright = frames(Rectangle(0, H, 0, W), 1)
    half_dark = frames(Rectangle(0, H, 0, W // 2), 3)
    assert find_picture(half_dark + bright, black=16, white=235).fills(H, W)


def test_a_film_that_is_black_throughout_is_left_whole() -> None:
    assert find_picture([np.full((H, W), 16, np.uint8)] * 3, black=16, white=235).fills(H, W)


def test_a_dust_speck_in_the_bar_changes_nothing() -> None:
    rectangle = Rectangle(0, H, 20, W - 20)
    dusty = frames(rectangle)
    dusty[1][50:52, 5:7] = 235
    assert find_picture(dusty, black=16, white=235) == rectangle


def test_one_pixel_is_a_picture() -> None:
    assert find_picture([np.zeros((1, 1), np.uint8)], black=0, white=255) == Rectangle(0, 1, 0, 1)
