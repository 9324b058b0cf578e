"""Luma weights of the Y'CbCr matrices; standard library only, so that `film` needs no torch to know them."""

from __future__ import annotations

from typing import Final

MATRICES: Final[dict[str, tuple[float, float]]] = {
    "bt709": (0.2126, 0.0722),
    "bt470bg": (0.299, 0.114),
    "smpte170m": (0.299, 0.114),
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
    "bt2020nc": (0.2627, 0.0593),
}
"""(Kr, Kb) by FFmpeg's name of the matrix (ITU-T H.273 table 4)."""
