"""Black side bars, letterbox mattes and rounded-off frame edges: where in the frame the picture is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

SMALLEST_SHARE = 0.3
"""Bars that would leave less of the frame's height or width than this are taken for a dark scene."""


BLACK_SHARE = 0.045
"""Luma up to this share of the way from black to white counts as black."""
LIT_SHARE = 0.1
"""A frame with more of its bars lit than this is no frame with bars: a title's full-screen neighbour, a wider reel.
Subtitles set into a letterbox stay below it."""


@dataclass(frozen=True)
class Rectangle:
    """A part of the frame, in px: rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height_px(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width_px(self) -> int:
        """Columns."""
        return self.right - self.left

    def fills(self, height_px: int, width_px: int) -> bool:
        """Whether it is the whole frame."""
        return (self.top, self.bottom, self.left, self.right) == (0, height_px, 0, width_px)


def find_picture(frames: Sequence[npt.NDArray[Any]], *, black: int, white: int) -> Rectangle:
    """The part of the frame that is not black bars in any of the sampled frames.

    A row or column belongs to a bar when in every frame all but its brightest twentieth is nearly black. One dark
    scene does not make a bar, since others lighten it; a film that is dark throughout is left whole. Bars that are
    grey rather than black are picture.

    Args:
        frames: (H, W) luma code values of frames spread over the film, all of one size.
        black: code value of black.
        white: code value of white.

    Returns:
        The picture's rectangle; the whole frame where there are no bars.
    """
    height, width = frames[0].shape
    whole = Rectangle(0, height, 0, width)
    if height < 16 or width < 16:
        return whole
    threshold = black + BLACK_SHARE * (white - black)
    step_y, step_x = max(1, height // 400), max(1, width // 400)  # along a row or column a sample of it will do
    lit_rows = np.zeros(height, dtype=bool)
    lit_columns = np.zeros(width, dtype=bool)
    for frame in frames:
        # The 95th percentile lets a scratch, a dust speck or a ringing edge cross a bar without lighting it.
        lit_rows |= np.percentile(frame[:, ::step_x], 95, axis=1) > threshold
        lit_columns |= np.percentile(frame[::step_y], 95, axis=0) > threshold
    if not lit_rows.any() or not lit_columns.any():
        return whole
    rows, columns = np.flatnonzero(lit_rows), np.flatnonzero(lit_columns)
    found = Rectangle(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    if found.height_px < SMALLEST_SHARE * height or found.width_px < SMALLEST_SHARE * width:
        return whole
    # A bar of a pixel or two is an edge of the scan, not a matte; cutting it would only shift the picture.
    margin_y, margin_x = max(2, height // 100), max(2, width // 100)
    return Rectangle(
        found.top if found.top > margin_y else 0,
        found.bottom if height - found.bottom > margin_y else height,
        found.left if found.left > margin_x else 0,
        found.right if width - found.right > margin_x else width,
    )


def lit_outside(luma: Tensor, picture: Rectangle, *, black: int, white: int) -> Tensor:
    """Which frames show something where their bars should be.

    Args:
        luma: (N, H, W) code values.
        picture: the rectangle found for the film.
        black: code value of black.
        white: code value of white.

    Returns:
        (N,) bool, on the CPU.
    """
    strips = [
        luma[:, : picture.top],
        luma[:, picture.bottom :],
        luma[:, picture.top : picture.bottom, : picture.left],
        luma[:, picture.top : picture.bottom, picture.right :],
    ]
    pixels = sum(strip[0].numel() for strip in strips)
    if not pixels:
        return torch.zeros(len(luma), dtype=torch.bool)
    threshold = int(black + BLACK_SHARE * (white - black))
    lit = torch.stack([(strip > threshold).flatten(1).sum(1) for strip in strips]).sum(0)
    return (lit > LIT_SHARE * pixels).cpu()
