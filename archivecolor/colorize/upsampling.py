"""The network's ab at the size of the film's chroma.

Measured on photographs and film frames with their true ab averaged down to the network's size,
the bicubic that undoes some of that averaging is closest to the truth, at edges and elsewhere. Following the edges of
L as well gains a little on clean pictures and loses it on grainy ones.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from archivecolor.colorize.engine import resize_area

ChromaUpsampling = Literal["bilinear", "bicubic", "guided"]

_SHARPENING = 0.15
"""Gain on what a sample differs from its 3x3 neighbourhood by: a sample of the network's size is an average."""
_GUIDE_NOISE = 50.0
"""L* squared; detail in L of less variance does not guide colour."""


def upsample_ab(
    ab: Tensor, height_px: int, width_px: int, method: ChromaUpsampling = "bicubic", L: Tensor | None = None
) -> Tensor:
    """Bring (N, 2, h, w) float32 ab to (N, 2, height_px, width_px).

    ``guided`` adds to ``bicubic`` what the local linear relation between L and ab makes of the detail that L,
    (N, 1, height_px, width_px), has beyond the size of ab (He et al., *Guided Image Filtering*, ECCV 2010, of which it
    keeps the slope alone).
    """
    h, w = ab.shape[-2:]
    if 2 * height_px < h or 2 * width_px < w:
        return resize_area(ab, height_px, width_px)
    if method == "bilinear":
        return _resize(ab, height_px, width_px, cubic=False)
    larger = _resize(_sharpen(ab) if height_px * width_px > h * w else ab, height_px, width_px, cubic=True)
    if method == "bicubic" or L is None:
        return larger
    small = resize_area(L, h, w)
    mean, mean_ab = _box(small), _box(ab)
    slope = (_box(small * ab) - mean * mean_ab) / (_box(small * small) - mean * mean + _GUIDE_NOISE)
    detail = L - _resize(small, height_px, width_px, cubic=True)
    return larger.addcmul_(_resize(slope, height_px, width_px, cubic=False), detail)


def _resize(x: Tensor, height_px: int, width_px: int, *, cubic: bool) -> Tensor:
    if x.device.type != "cpu":
        mode = "bicubic" if cubic else "bilinear"
        return F.interpolate(x, size=(height_px, width_px), mode=mode, align_corners=False)
    resized = np.empty((*x.shape[:2], height_px, width_px), np.float32)  # OpenCV does the same several times faster
    for planes, out in zip(x.numpy(), resized, strict=True):
        for plane, into in zip(planes, out, strict=True):
            cv2.resize(plane, (width_px, height_px), into, 0, 0, cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR)
    return torch.from_numpy(resized)


def _sharpen(ab: Tensor) -> Tensor:
    return torch.lerp(_box(ab), ab, 1 + _SHARPENING)


def _box(x: Tensor) -> Tensor:
    """Mean of each sample's 3x3 neighbourhood."""
    if x.device.type != "cpu":
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    averaged = np.empty(x.shape, np.float32)
    for planes, out in zip(x.numpy(), averaged, strict=True):
        for plane, into in zip(planes, out, strict=True):
            cv2.boxFilter(plane, -1, (3, 3), into, borderType=cv2.BORDER_REPLICATE)
    return torch.from_numpy(averaged)
