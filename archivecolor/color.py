"""Colour science on tensors: luma to CIE lightness, CIE Lab to and from R'G'B' and Y'CbCr.

Everything is float32 (pass float64 tensors for more) and works on NCHW tensors of any leading shape: the channel
dimension is the third from last. White is D65, primaries BT.709, transfer sRGB (IEC 61966-2-1), matrix and white
with the six digits that OpenCV uses, so that grey is a = b = 0 to the last bit.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from archivecolor.matrices import MATRICES

L_SCALE: Final = 50.0
AB_SCALE: Final = 110.0

# ITU-R BT.709 primaries, D65: linear RGB to CIE XYZ with Y of white = 1.
RGB_TO_XYZ: Final = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
WHITE_XYZ: Final = (0.950456, 1.0, 1.088754)

_EPSILON = (6 / 29) ** 3
_KAPPA = (29 / 3) ** 3


def _mix(channels: tuple[Tensor, Tensor, Tensor], matrix: tuple[tuple[float, ...], ...]) -> list[Tensor]:
    """Rows of ``matrix`` applied to three planes; exact in float32, where a matmul may run in TF32 or bf16."""
    x, y, z = channels
    return [torch.add(torch.add(x * row[0], y, alpha=row[1]), z, alpha=row[2]) for row in matrix]


def _planes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, b, c = x.unbind(-3)
    return a, b, c


def srgb_to_linear(encoded: Tensor) -> Tensor:
    """sRGB electro-optical transfer, 0..1 to 0..1 (IEC 61966-2-1)."""
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded.clamp_min(0) + 0.055) / 1.055).pow(2.4))


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Inverse of `srgb_to_linear`; negative values continue the linear part."""
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp_min(0).pow(1 / 2.4) - 0.055)


def lightness(y: Tensor) -> Tensor:
    """CIE L* 0..100 of relative luminance Y 0..1 (CIE 15)."""
    return torch.where(y > _EPSILON, 116 * y.clamp_min(0).pow(1 / 3) - 16, _KAPPA * y)


def luminance(L: Tensor) -> Tensor:
    """Relative luminance Y 0..1 of CIE L* 0..100, the inverse of `lightness`."""
    return torch.where(L > 8.0, ((L + 16) / 116).pow(3), L / _KAPPA)


def code_range(bit_depth: int, full_range: bool) -> tuple[int, int]:
    """Luma code values of black and white: 16 and 235 times 2^(bits-8), or 0 and 2^bits - 1 in full range."""
    if full_range:
        return 0, (1 << bit_depth) - 1
    return 16 << (bit_depth - 8), 235 << (bit_depth - 8)


def lightness_table(bit_depth: int, full_range: bool) -> Tensor:
    """CIE L* of every luma code value, (2^bit_depth,) float32, 0..100.

    A black-and-white film's luma stands for R' = G' = B'. Code values below black or above white (the foot and head
    room of limited range) take the lightness of black and of white.
    """
    black, white = code_range(bit_depth, full_range)
    codes = torch.arange(1 << bit_depth, dtype=torch.float64)
    encoded = ((codes - black) / (white - black)).clamp(0, 1)
    return lightness(srgb_to_linear(encoded)).float()


def lightness_to_luma(L: Tensor, bit_depth: int, full_range: bool) -> Tensor:
    """Luma code values (float, not rounded) of L* 0..100: the inverse of `lightness_table`."""
    black, white = code_range(bit_depth, full_range)
    return linear_to_srgb(luminance(L)) * (white - black) + black


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """R'G'B' 0..1, (..., 3, H, W), to CIE Lab: L 0..100, a and b within -108..98 (CIE 15, D65)."""
    r, g, b = _planes(srgb_to_linear(rgb))
    fx, fy, fz = (
        torch.where(t > _EPSILON, t.clamp_min(0).pow(1 / 3), (_KAPPA * t + 16) / 116)
        for t in (v / w for v, w in zip(_mix((r, g, b), RGB_TO_XYZ), WHITE_XYZ, strict=True))
    )
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=-3)


def lab_to_linear_rgb(lab: Tensor) -> Tensor:
    """CIE Lab to linear RGB, (..., 3, H, W); outside 0..1 where the colour is outside the sRGB gamut."""
    L, a, b = _planes(lab)
    fy = (L + 16) / 116
    xyz = []
    for f, white in zip((fy + a / 500, fy, fy - b / 200), WHITE_XYZ, strict=True):
        xyz.append(torch.where(f > 6 / 29, f * f * f, (116 * f - 16) / _KAPPA) * white)
    return torch.stack(_mix((xyz[0], xyz[1], xyz[2]), XYZ_TO_RGB), dim=-3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """CIE Lab, (..., 3, H, W), to R'G'B' clipped to 0..1."""
    return linear_to_srgb(lab_to_linear_rgb(lab).clamp(0, 1))


def rgb_to_ycbcr(rgb: Tensor, matrix: str) -> Tensor:
    """R'G'B' 0..1 to Y' 0..1, Cb and Cr -0.5..0.5, (..., 3, H, W), with one of `MATRICES` (ITU-T H.273)."""
    r, g, b = _planes(rgb)
    kr, kb = MATRICES[matrix]
    y = kr * r + (1 - kr - kb) * g + kb * b
    return torch.stack([y, (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))], dim=-3)


def ycbcr_to_rgb(ycbcr: Tensor, matrix: str) -> Tensor:
    """Inverse of `rgb_to_ycbcr`; not clipped."""
    y, cb, cr = _planes(ycbcr)
    kr, kb = MATRICES[matrix]
    r = y + 2 * (1 - kr) * cr
    b = y + 2 * (1 - kb) * cb
    return torch.stack([r, (y - kr * r - kb * b) / (1 - kr - kb), b], dim=-3)


def normalise_l(L: Tensor) -> Tensor:
    """L* 0..100 to the network's -1..1."""
    return L / L_SCALE - 1


def normalise_ab(ab: Tensor) -> Tensor:
    """a*, b* to the network's -1..1."""
    return ab / AB_SCALE


def denormalise_ab(ab_norm: Tensor) -> Tensor:
    """The network's -1..1 to a*, b*."""
    return ab_norm * AB_SCALE


def _invert3(m: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    inverse = torch.linalg.inv(torch.tensor(m, dtype=torch.float64))
    return tuple(tuple(float(v) for v in row) for row in inverse)


XYZ_TO_RGB = _invert3(RGB_TO_XYZ)
