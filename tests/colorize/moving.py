"""Moving pictures for the tests of motion and steadiness: lightness as (H, W) float32 arrays, 0..100."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from tests.clips import luma_frame

SIDE_PX = 128


def texture(seed: int, side_px: int = SIDE_PX) -> np.ndarray:
    """Blotches of several sizes, as different as scenes are for different seeds."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((side_px, side_px))
    for size in (2, 5, 12):
        layer = cv2.GaussianBlur(rng.standard_normal((side_px, side_px)), (0, 0), size)
        picture += layer / layer.std()
    return np.clip(50 + 12 * picture, 0, 100).astype(np.float32)


def moved(picture: np.ndarray, x_px: float, y_px: float) -> np.ndarray:
    """Shifted right and down, its border mirrored."""
    shift = np.array([[1, 0, x_px], [0, 1, y_px]], np.float32)
    size = picture.shape[1], picture.shape[0]
    return cv2.warpAffine(picture, shift, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def worn(picture: np.ndarray, rng: np.random.Generator, grain: float = 4.0) -> np.ndarray:
    """As on old stock: exposure that jumps by up to 30 % and across the frame, grain, a scratch, specks of dust."""
    h, w = picture.shape
    slope = np.linspace(-0.1, 0.1, w) * rng.uniform(-1, 1)
    out = picture * (rng.uniform(0.7, 1.3) + slope) + rng.uniform(-5, 5) + grain * rng.standard_normal((h, w))
    out[:, rng.integers(w)] = 95
    for _ in range(4):
        y, x = rng.integers(h - 4), rng.integers(w - 4)
        out[y : y + 3, x : x + 3] = rng.choice([5, 95])
    return np.clip(out, 0, 100).astype(np.float32)


def make_shots(path: Path, lengths: Sequence[int], *, bits: int = 8, flashes: Sequence[int] = ()) -> Path:
    """A film without loss, 25 frames/s, of shots of these lengths, each a pan over a scene of its own.

    Frames of a shot with the numbers ``flashes`` are of something else.
    """
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25, options={"level": "3", "g": "1"})
        stream.width = stream.height = SIDE_PX
        stream.pix_fmt = "yuv420p" if bits == 8 else f"yuv420p{bits}le"
        for shot, length in enumerate(lengths):
            scene = texture(shot, SIDE_PX)
            for number in range(length):
                seen = texture(99) if number in flashes else moved(scene, 0.7 * number, -0.3 * number)
                luma = 16 + seen.clip(0, 100) * 2.19
                codes = np.round(luma * (1 << bits - 8)).astype(np.uint8 if bits == 8 else np.uint16)
                output.mux(stream.encode(luma_frame(codes, stream.pix_fmt)))
        output.mux(stream.encode(None))
    return path
