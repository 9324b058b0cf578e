"""Colour conversion by table: for 8-bit luma into 8-bit planes on a CPU, several times faster than by arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Codes = npt.NDArray[np.uint8]
Convert = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]

_STEPS: Final = 2
"""Steps to a unit of a and of b. Half a step moves Cb and Cr by less than a quarter of a code value."""
_REACH: Final = 110
"""a and b beyond this, far outside the gamut, count as this."""
_SIDE: Final = 2 * _REACH * _STEPS + 1
_CELLS_AT_A_TIME: Final = 256


class ColorTable:
    """Y', Cb and Cr codes of every luma code, for each cell of the ab plane that has been asked for.

    Cells are filled in when they are first met, so that what a film does not use costs neither time nor memory. May
    be used in several threads at once: two that meet a cell together fill in the same codes.

    Args:
        convert: the exact conversion: Y', Cb and Cr codes, uint8, of luma codes uint8 (h, w) and ab (2, h, w).
    """

    def __init__(self, convert: Convert) -> None:
        self._convert = convert
        self._codes = [np.empty((_SIDE * _SIDE, 256), np.uint8) for _ in range(3)]
        self._filled = np.zeros(_SIDE * _SIDE, np.bool_)

    def planes(
        self, luma: Codes, ab: npt.NDArray[np.float32], log2_w: int, log2_h: int, *, keep_luma: bool = False
    ) -> tuple[Codes, Codes, Codes]:
        """Convert each pixel, with the colour of the chroma sample that it belongs to.

        Args:
            luma: (h << log2_h, w << log2_w) code values.
            ab: (2, h, w).
            keep_luma: convert chroma only.

        Returns:
            Y', as ``luma``; Cb and Cr, (h, w), at the mean luma of their pixels.
        """
        first = self._cells(ab) << 8  # entry of each cell, the table being one long row
        of_samples = first + _mean(luma, log2_w, log2_h)
        y, cb, cr = self._codes
        if not keep_luma:
            luma = _look_up(y, _spread(first, log2_w, log2_h) + luma)
        return luma, _look_up(cb, of_samples), _look_up(cr, of_samples)

    def _cells(self, ab: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """The number of each (2, h, w) ab's cell, int32 (h, w), all of them filled in."""
        row, column = (np.clip(np.rint((plane + _REACH) * _STEPS), 0, _SIDE - 1) for plane in ab)
        cells: npt.NDArray[np.int32] = (row * _SIDE + column).astype(np.int32)
        is_known = np.take(self._filled, cells)
        if not is_known.all():
            new = np.unique(cells[~is_known])
            for start in range(0, len(new), _CELLS_AT_A_TIME):
                self._fill(new[start : start + _CELLS_AT_A_TIME])
        return cells

    def _fill(self, cells: npt.NDArray[Any]) -> None:
        a, b = np.divmod(cells, _SIDE)
        ab = torch.from_numpy(np.stack([a, b]).astype(np.float32) / _STEPS - _REACH)[..., None].expand(-1, -1, 256)
        luma = torch.arange(256, dtype=torch.uint8).expand(len(cells), 256).contiguous()
        for codes, values in zip(self._codes, self._convert(luma, ab), strict=True):
            codes[cells] = values.numpy()
        self._filled[cells] = True


def _look_up(codes: Codes, entries: npt.NDArray[np.int32]) -> Codes:
    """``codes`` at ``entries``, in the shape of these; torch takes 32-bit indices as they are, numpy copies them."""
    found = torch.from_numpy(codes).view(-1).index_select(0, torch.from_numpy(entries).view(-1))
    return found.view(entries.shape).numpy()


def _spread(values: npt.NDArray[np.int32], log2_w: int, log2_h: int) -> npt.NDArray[np.int32]:
    """(h, w) of chroma samples to (h << log2_h, w << log2_w) of pixels."""
    if log2_w == log2_h == 0:
        return values.copy()
    h, w = values.shape
    size = (w << log2_w, h << log2_h)
    return cv2.resize(values.view(np.float32), size, interpolation=cv2.INTER_NEAREST).view(np.int32)


def _mean(luma: Codes, log2_w: int, log2_h: int) -> npt.NDArray[np.integer[Any]]:
    """Rounded mean of the pixels of each chroma sample."""
    total = luma.astype(np.uint16)
    for _ in range(log2_h):
        total = total[0::2] + total[1::2]
    for _ in range(log2_w):
        total = total[:, 0::2] + total[:, 1::2]
    shift = log2_w + log2_h
    return total + (1 << shift >> 1) >> shift
