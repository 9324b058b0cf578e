"""A film made of arithmetic, for measuring where none is at hand."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from archivecolor.film.pixels import plane_view

_RATE_FPS = 25


def make_synthetic_film(path: Path, *, width_px: int, height_px: int, frames: int) -> None:
    """Write ``frames`` grey H.264 frames at 25 a second: a camera pan over a textured scene, with grain and flicker.

    ``width_px`` and ``height_px`` are even. Seeded: the same film each time.
    """
    random = np.random.default_rng(0)
    scene = _texture(random, height_px, width_px + 2 * frames)
    grain = random.normal(0, 3, (8, height_px, width_px)).astype(np.float32)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=_RATE_FPS, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
        for number in range(frames):
            picture = scene[:, 2 * number : 2 * number + width_px] * random.normal(1, 0.01) + grain[number % 8]
            frame = av.VideoFrame(width_px, height_px, "yuv420p")
            plane_view(frame, 0)[:] = np.clip(picture, 16, 235).astype(np.uint8)
            for chroma in (1, 2):
                plane_view(frame, chroma)[:] = 128
            frame.pts, frame.time_base = number, Fraction(1, _RATE_FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _texture(random: np.random.Generator, height_px: int, width_px: int) -> npt.NDArray[np.float32]:
    """Luma 16..235 of soft patches at every scale, the coarse ones strongest."""
    picture = np.full((height_px, width_px), 120, np.float32)
    for octave, cell_px in enumerate((128, 64, 32, 16, 8, 4)):
        down, across = _hats(height_px, cell_px), _hats(width_px, cell_px)
        picture += down @ random.normal(0, 60 / 1.7**octave, (down.shape[1], across.shape[1])) @ across.T
    return np.clip(picture, 16, 235)


def _hats(length_px: int, cell_px: int) -> npt.NDArray[np.float32]:
    """(length, cells): the weights of linear interpolation between cells."""
    at = np.arange(length_px)[:, None] / cell_px
    hats: npt.NDArray[np.float64] = np.maximum(0, 1 - np.abs(at - np.arange(length_px // cell_px + 2)))
    return hats.astype(np.float32)
