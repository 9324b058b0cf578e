"""Frames of another size than the film's, fitted into it: the film's first size is the output's."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np

from archivecolor.film.info import Picture
from archivecolor.film.pixels import Plane


def fit_luma(luma: Plane, sample_aspect: Fraction, picture: Picture) -> Plane:
    """``luma`` (H, W) scaled into a ``picture``-sized plane without changing its shape on the screen, on black.

    ``sample_aspect`` is that of ``luma``'s own pixels.
    """
    height, width = luma.shape
    shown = Fraction(width, height) * sample_aspect / (picture.sample_aspect_ratio or 1)  # in the film's pixels
    new_width, new_height = picture.width_px, picture.height_px
    if shown > Fraction(new_width, new_height):
        new_height = max(1, round(new_width / shown))
    else:
        new_width = max(1, round(new_height * shown))
    shrinks = new_width * new_height < width * height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    scaled = cv2.resize(np.ascontiguousarray(luma), (new_width, new_height), interpolation=method)
    black = 0 if picture.full_range else 16 << (picture.bit_depth - 8)
    fitted = np.full((picture.height_px, picture.width_px), black, luma.dtype)
    top, left = (picture.height_px - new_height) // 2, (picture.width_px - new_width) // 2
    fitted[top : top + new_height, left : left + new_width] = np.minimum(scaled, (1 << picture.bit_depth) - 1)
    return fitted
