"""The network's ab and the film's own lightness, joined again into Y'CbCr planes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from archivecolor import color
from archivecolor.colorize.mattes import Rectangle
from archivecolor.matrices import MATRICES

_TILE_PX = 1 << 16
"""Pixels that the CPU converts at a time, so that the dozens of steps of the conversion stay within its cache."""


@dataclass(frozen=True)
class PlaneFormat:
    """What the code values of the output's planes mean."""

    bit_depth: int
    full_range: bool
    matrix: str
    log2_chroma_w: int
    log2_chroma_h: int

    def chroma_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Rows and columns of the chroma planes, rounded up as FFmpeg does."""
        return -(-height_px >> self.log2_chroma_h), -(-width_px >> self.log2_chroma_w)


class Recombiner:
    """Luma and ab to output planes, all on one device.

    ``mode`` ``"lab"``: the output's colour has the source's CIE lightness and the ab given, as far as the sRGB gamut
    reaches. ``"luma"``: the luma plane is the source's own, code value for code value, and only chroma is made;
    source and output must agree in bit depth and range.
    """

    def __init__(
        self,
        *,
        bit_depth: int,
        full_range: bool,
        out: PlaneFormat,
        mode: Literal["lab", "luma"],
        device: torch.device,
    ) -> None:
        if mode == "luma" and (out.bit_depth, out.full_range) != (bit_depth, full_range):
            raise ValueError("keeping the luma plane needs the source's bit depth and range in the output")
        self.out, self.mode, self.device = out, mode, device
        self._lightness = color.lightness_table(bit_depth, full_range).to(device)

    def lightness(self, luma: Tensor) -> Tensor:
        """(N, H, W) code values, any integer dtype, to (N, 1, H, W) L* 0..100 float32; beyond the depth is white."""
        if self.device.type == "cpu":  # numpy looks up several times faster than torch does there
            return torch.from_numpy(np.take(self._lightness.numpy(), luma.numpy(), mode="clip")).unsqueeze(1)
        return self._lightness[luma.int().clamp_(0, self._lightness.numel() - 1)].unsqueeze(1)

    @torch.inference_mode()
    def __call__(
        self, luma: Tensor, L: Tensor, ab: Tensor, picture: Rectangle | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Planes of a batch.

        Args:
            luma: (N, H, W) source code values on the device.
            L: (N, 1, H, W) its `lightness`.
            ab: (N, 2, h, w) float32, the colours of ``picture`` at any size.
            picture: where in the frame they belong; outside it the frame stays neutral.

        Returns:
            Y', Cb and Cr code values: (N, H, W), and twice (N, ceil(H / 2^log2_chroma_h), ceil(W / 2^log2_chroma_w)),
            uint8 for 8 bit and int32 above.
        """
        n, _, h, w = L.shape
        chroma_h, chroma_w = self.out.chroma_size(h, w)
        chroma_L = _subsample(L, self.out.log2_chroma_w, self.out.log2_chroma_h)
        chroma_ab = place_chroma(ab, chroma_h, chroma_w, picture, h, w)

        cb = torch.empty(n, chroma_h, chroma_w, dtype=self._code_dtype, device=self.device)
        cr = torch.empty_like(cb)
        for rows in self._tiles(chroma_h, chroma_w):
            _, b, r = _ycbcr(chroma_L[:, :, rows], chroma_ab[:, :, rows], self.out.matrix)
            cb[:, rows], cr[:, rows] = self._chroma_codes(b), self._chroma_codes(r)

        if self.mode == "luma":
            return luma, cb, cr
        full_ab = place_chroma(ab, h, w, picture, h, w)
        y = torch.empty(n, h, w, dtype=self._code_dtype, device=self.device)
        for rows in self._tiles(h, w):
            y[:, rows] = self._luma_codes(_ycbcr(L[:, :, rows], full_ab[:, :, rows], self.out.matrix)[0])
        return y, cb, cr

    @property
    def _code_dtype(self) -> torch.dtype:
        return torch.uint8 if self.out.bit_depth == 8 else torch.int32

    def _tiles(self, height_px: int, width_px: int) -> list[slice]:
        rows = height_px if self.device.type != "cpu" else max(1, _TILE_PX // width_px)
        return [slice(top, min(top + rows, height_px)) for top in range(0, height_px, rows)]

    def _luma_codes(self, y: Tensor) -> Tensor:
        """Y' 0..1 to code values (ITU-T H.273 eq. 8 to 10)."""
        black, white = color.code_range(self.out.bit_depth, self.out.full_range)
        return y.mul_(white - black).add_(black).round_().clamp_(0, (1 << self.out.bit_depth) - 1).to(self._code_dtype)

    def _chroma_codes(self, c: Tensor) -> Tensor:
        """Cb or Cr -0.5..0.5 to code values (ITU-T H.273 eq. 8 to 10)."""
        depth = self.out.bit_depth
        scale = (1 << depth) - 1 if self.out.full_range else 224 << (depth - 8)
        return c.mul_(scale).add_(1 << (depth - 1)).round_().clamp_(0, (1 << depth) - 1).to(self._code_dtype)


def _ycbcr(L: Tensor, ab: Tensor, matrix: str) -> tuple[Tensor, Tensor, Tensor]:
    """Y', Cb and Cr, (N, h, w) each, of (N, 1, h, w) L* and (N, 2, h, w) ab, clipped to the sRGB gamut.

    The same as `color.lab_to_rgb` and `color.rgb_to_ycbcr`, to 1e-5, without branches and powers: this runs on every
    pixel of the film.
    """
    fy = (L[:, 0] + 16) / 116
    fx = torch.add(fy, ab[:, 0], alpha=1 / 500)
    fz = torch.sub(fy, ab[:, 1], alpha=1 / 200)
    xyz = [_lab_f_inverse(f) for f in (fx, fy, fz)]
    rgb = []
    for row in _LAB_XYZ_TO_RGB:
        linear = xyz[0] * row[0]
        rgb.append(_encode_srgb(linear.add_(xyz[1], alpha=row[1]).add_(xyz[2], alpha=row[2])))
    r, g, b = rgb
    kr, kb = MATRICES[matrix]
    y = g.mul_(1 - kr - kb).add_(r, alpha=kr).add_(b, alpha=kb)
    return y, b.sub_(y).div_(2 * (1 - kb)), r.sub_(y).div_(2 * (1 - kr))


# Rows of XYZ -> linear RGB with the white point multiplied in, for X/Xn, Y/Yn, Z/Zn.
_LAB_XYZ_TO_RGB = tuple(tuple(v * w for v, w in zip(row, color.WHITE_XYZ, strict=True)) for row in color.XYZ_TO_RGB)
_DELTA = 6 / 29
_SRGB_KNEE = 0.0031308
# 1.055 x^(1/2.4) - 0.055 on [knee, 1] as a polynomial in x^(1/4), fitted to a largest error of 6.6e-6.
_SRGB_POLYNOMIAL = (-0.0613407186, 0.1620305701, 1.2553909029, -0.5774633410, 0.2895203549, -0.0681443619)


def _lab_f_inverse(f: Tensor) -> Tensor:
    """t of CIE Lab's f(t): f^3, continued below 6/29 by its tangent."""
    curved = f.clamp_min(_DELTA)
    return torch.addcmul((f - curved).mul_(3 * _DELTA**2), curved * curved, curved)


def _encode_srgb(linear: Tensor) -> Tensor:
    """sRGB transfer of linear light, clipped to 0..1."""
    root = linear.clamp(_SRGB_KNEE, 1).sqrt_().sqrt_()
    encoded = root * _SRGB_POLYNOMIAL[-1]
    for coefficient in _SRGB_POLYNOMIAL[-2:0:-1]:
        encoded = encoded.add_(coefficient).mul_(root)
    toe = linear.clamp_(0, _SRGB_KNEE).sub_(_SRGB_KNEE)
    return encoded.add_(_SRGB_POLYNOMIAL[0]).add_(toe, alpha=12.92)


def _subsample(L: Tensor, log2_w: int, log2_h: int) -> Tensor:
    """(N, 1, H, W) at the chroma samples: between two rows, and on the left of two columns, as H.264 sites them."""
    for _ in range(log2_h):
        if L.shape[-2] % 2:
            L = F.pad(L, (0, 0, 0, 1), mode="replicate")
        L = (L[..., 0::2, :] + L[..., 1::2, :]) / 2
    for _ in range(log2_w):
        if L.shape[-1] % 2:
            L = F.pad(L, (0, 1, 0, 0), mode="replicate")
        even, odd = L[..., 0::2], L[..., 1::2]
        before = torch.cat([odd[..., :1], odd[..., :-1]], dim=-1)
        L = (2 * even + odd + before) / 4
    return L


def place_chroma(
    ab: Tensor, height_px: int, width_px: int, picture: Rectangle | None, full_h: int, full_w: int
) -> Tensor:
    """(N, 2, h, w) ab of ``picture``, a part of a full_h x full_w frame, at (height_px, width_px); zero outside it."""
    if picture is None or picture.fills(full_h, full_w):
        return F.interpolate(ab, size=(height_px, width_px), mode="bilinear", align_corners=False)
    scale_y, scale_x = height_px / full_h, width_px / full_w
    top, bottom = round(picture.top * scale_y), max(round(picture.bottom * scale_y), 1)
    left, right = round(picture.left * scale_x), max(round(picture.right * scale_x), 1)
    placed = ab.new_zeros(ab.shape[0], 2, height_px, width_px)
    placed[:, :, top:bottom, left:right] = F.interpolate(
        ab, size=(bottom - top, right - left), mode="bilinear", align_corners=False
    )
    return placed
