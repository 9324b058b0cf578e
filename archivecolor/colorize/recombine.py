"""The network's ab and the film's own lightness, joined again into Y'CbCr planes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from archivecolor import color
from archivecolor.colorize.color_table import ColorTable
from archivecolor.colorize.engine import resize_area
from archivecolor.colorize.mattes import Rectangle
from archivecolor.colorize.upsampling import ChromaUpsampling, upsample_ab
from archivecolor.matrices import MATRICES

_TILE_PX = 1 << 15
"""Chroma samples that the CPU converts at a time, so that the many steps of the conversion stay within its cache."""
_MOST_SPAN = 0.15
"""Part of the range from black to white over which Y' is taken to be linear in luma. Grain stays within it, hard edges
do not; it bends there by a quarter of a code value of 8 bits on average."""


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
    source and output must agree in bit depth and range. ``upsampling`` brings ab to the size of the output's chroma.

    On a CPU, 8-bit luma becomes 8-bit planes by table (`ColorTable`); everything else is computed. A CPU then converts
    colour, where pixels share a chroma sample, for the darkest and the brightest of them, and between the two takes Y'
    to be linear in the source's luma. Where they lie far apart, at hard edges, each pixel is converted.
    """

    def __init__(
        self,
        *,
        bit_depth: int,
        full_range: bool,
        out: PlaneFormat,
        mode: Literal["lab", "luma"],
        device: torch.device,
        upsampling: ChromaUpsampling = "bicubic",
    ) -> None:
        if mode == "luma" and (out.bit_depth, out.full_range) != (bit_depth, full_range):
            raise ValueError("keeping the luma plane needs the source's bit depth and range in the output")
        self.out, self.mode, self.device, self.upsampling = out, mode, device, upsampling
        self.source_range = color.code_range(bit_depth, full_range)
        self._lightness = color.lightness_table(bit_depth, full_range).to(device)
        self._converts_each_pixel = device.type != "cpu"  # arithmetic costs a GPU nothing
        self._to_linear = torch.tensor(_LAB_XYZ_TO_RGB, device=device)
        self._to_ycbcr = _ycbcr_matrix(out.matrix).to(device)
        self._table: ColorTable | None = None
        if device.type == "cpu" and bit_depth == out.bit_depth == 8:
            self._table = ColorTable(self._convert_to_codes)
        self._most_span = int(_MOST_SPAN * (self.source_range[1] - self.source_range[0]))

    def lightness(self, luma: Tensor) -> Tensor:
        """(N, H, W) code values, any integer dtype, to (N, 1, H, W) L* 0..100 float32; beyond the depth is white."""
        if self.device.type != "cpu":
            return self._lightness[luma.int().clamp_(0, self._lightness.numel() - 1)].unsqueeze(1)
        table = self._lightness.numpy()  # numpy and OpenCV look up several times faster than torch does on a CPU
        if luma.dtype == torch.uint8:
            L = cv2.LUT(luma.flatten(0, 1).contiguous().numpy(), table).reshape(luma.shape)
        else:
            L = np.take(table, luma.numpy(), mode="clip")
        return torch.from_numpy(L).unsqueeze(1)

    @torch.inference_mode()
    def __call__(self, luma: Tensor, ab: Tensor, picture: Rectangle | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Planes of a batch.

        Args:
            luma: (N, H, W) source code values on the device, uint8 or int32.
            ab: (N, 2, h, w) float32, the colours of ``picture`` at any size.
            picture: where in the frame they belong; outside it the frame stays neutral.

        Returns:
            Y', Cb and Cr code values: (N, H, W), and twice (N, ceil(H / 2^log2_chroma_h), ceil(W / 2^log2_chroma_w)),
            uint8 for 8 bit and int32 above.
        """
        n, h, w = luma.shape
        log2_w, log2_h = self.out.log2_chroma_w, self.out.log2_chroma_h
        chroma_h, chroma_w = self.out.chroma_size(h, w)
        L = self.lightness(luma) if self.upsampling == "guided" else None
        placed_ab = place_chroma(ab, chroma_h, chroma_w, picture, h, w, self.upsampling, L)
        # All frames as one tall picture, with whole blocks in it.
        padded = _pad(luma, chroma_h << log2_h, chroma_w << log2_w)
        tall, tall_ab = padded.flatten(0, 1), placed_ab.transpose(0, 1).flatten(1, 2)

        y = torch.empty_like(tall, dtype=self._code_dtype)
        cb = torch.empty(n * chroma_h, chroma_w, dtype=self._code_dtype, device=self.device)
        cr = torch.empty_like(cb)
        for rows in self._tiles(n * chroma_h, chroma_w):
            full = slice(rows.start << log2_h, rows.stop << log2_h)
            if self._table:
                part = tall[full].numpy(), tall_ab[:, rows].numpy()
                planes = self._table.planes(*part, log2_w, log2_h, keep_luma=self.mode == "luma")
                codes, cb[rows], cr[rows] = map(torch.from_numpy, planes)
                if self.mode == "lab":
                    y[full] = codes
                continue
            block = _Blocks(tall[full], log2_w, log2_h)
            if self.mode == "luma":
                _, b, r = self._convert(block.mean().round_().int(), tall_ab[:, rows])
            else:
                y[full], b, r = self._convert_blocks(block, tall_ab[:, rows])
            cb[rows], cr[rows] = self._chroma_codes(b), self._chroma_codes(r)
        cb, cr = cb.view(n, chroma_h, chroma_w), cr.view(n, chroma_h, chroma_w)
        return luma if self.mode == "luma" else y.view(padded.shape)[:, :h, :w], cb, cr

    def _convert_blocks(self, block: _Blocks, ab: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Y' codes of each pixel, and Cb and Cr of each block."""
        if block.is_single:
            y, cb, cr = self._convert(block.low, ab)
            return self._luma_codes(y), cb, cr
        if self._converts_each_pixel:
            _, cb, cr = self._convert(block.mean().round_().int(), ab)
            return self._luma_codes(self._convert(block.luma, torch.stack([block.spread(c) for c in ab]))[0]), cb, cr

        dark, cb, cr = self._convert(block.low, ab)
        bright, bright_cb, bright_cr = self._convert(block.high, ab)
        span = (block.high - block.low).clamp_min_(1)
        share = (block.mean() - block.low).div_(span)
        cb.addcmul_(bright_cb.sub_(cb), share)
        cr.addcmul_(bright_cr.sub_(cr), share)
        slope = bright.sub_(dark).div_(span)
        offset = dark.addcmul_(slope, block.low, value=-1)
        y = self._luma_codes(block.spread(slope).mul_(block.luma).add_(block.spread(offset)))
        contrasty = (span > self._most_span).nonzero(as_tuple=True)
        if len(contrasty[0]):
            pixels = block.pixels(contrasty)
            exact = self._convert(pixels, ab[:, *contrasty, None].expand(-1, -1, pixels.shape[1]))[0]
            block.put(y, contrasty, self._luma_codes(exact))
        return y, cb, cr

    def _convert(self, luma: Tensor, ab: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Y' 0..1 and Cb, Cr -0.5..0.5, float32 (h, w), of (h, w) source codes and (2, h, w) ab."""
        L = self.lightness(luma[None])[0, 0]
        ycbcr = _encode(_lab_to_linear(L, ab, self._to_linear), self._to_ycbcr)
        return ycbcr[0].view(luma.shape), ycbcr[1].view(luma.shape), ycbcr[2].view(luma.shape)

    def _convert_to_codes(self, luma: Tensor, ab: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Code values of what `_convert` gives."""
        y, cb, cr = self._convert(luma, ab)
        return self._luma_codes(y), self._chroma_codes(cb), self._chroma_codes(cr)

    @property
    def _code_dtype(self) -> torch.dtype:
        return torch.uint8 if self.out.bit_depth == 8 else torch.int32

    def _tiles(self, height_px: int, width_px: int) -> list[slice]:
        rows = height_px if self.device.type != "cpu" else max(1, _TILE_PX // width_px)
        return [slice(top, min(top + rows, height_px)) for top in range(0, height_px, rows)]

    def _codes(self, values: Tensor) -> Tensor:
        """Code values from float ones; overwrites them."""
        values.round_().clamp_(0, (1 << self.out.bit_depth) - 1)
        if self.device.type == "cpu":  # numpy converts several times faster than torch does on a CPU
            return torch.from_numpy(values.numpy().astype(np.uint8 if self.out.bit_depth == 8 else np.int32))
        return values.to(self._code_dtype)

    def _luma_codes(self, y: Tensor) -> Tensor:
        """Y' 0..1 to code values (ITU-T H.273 eq. 8 to 10)."""
        black, white = color.code_range(self.out.bit_depth, self.out.full_range)
        return self._codes(y.mul_(white - black).add_(black))

    def _chroma_codes(self, c: Tensor) -> Tensor:
        """Cb or Cr -0.5..0.5 to code values (ITU-T H.273 eq. 8 to 10)."""
        depth = self.out.bit_depth
        scale = (1 << depth) - 1 if self.out.full_range else 224 << (depth - 8)
        return self._codes(c.mul_(scale).add_(1 << (depth - 1)))


class _Blocks:
    """The pixels that share a chroma sample, of an (H, W) part of a frame that holds whole blocks.

    ``luma`` is those pixels, ``low`` and ``high`` (h, w) the least and the greatest of each block.
    """

    def __init__(self, luma: Tensor, log2_w: int, log2_h: int) -> None:
        self.luma = luma
        self._log2_w, self._log2_h = log2_w, log2_h
        self.is_single = log2_w == log2_h == 0
        low = high = luma
        for _ in range(log2_h):
            low, high = torch.minimum(low[0::2], low[1::2]), torch.maximum(high[0::2], high[1::2])
        for _ in range(log2_w):
            low, high = torch.minimum(low[:, 0::2], low[:, 1::2]), torch.maximum(high[:, 0::2], high[:, 1::2])
        self.low, self.high = low, high

    def mean(self) -> Tensor:
        """(h, w) float32."""
        total = self.luma.float()
        for _ in range(self._log2_h):
            total = total[0::2] + total[1::2]
        for _ in range(self._log2_w):
            total = total[:, 0::2] + total[:, 1::2]
        return total.div_(1 << self._log2_w + self._log2_h)

    def spread(self, values: Tensor) -> Tensor:
        """(h, w) of blocks to (H, W) of pixels."""
        return values.repeat_interleave(1 << self._log2_w, 1).repeat_interleave(1 << self._log2_h, 0)

    def pixels(self, blocks: tuple[Tensor, ...]) -> Tensor:
        """(K, pixels of a block) luma of the K blocks with these row and column numbers."""
        return self._apart(self.luma)[blocks[0], :, blocks[1]].flatten(1)

    def put(self, plane: Tensor, blocks: tuple[Tensor, ...], values: Tensor) -> None:
        """Set what `pixels` took, in ``plane`` (H, W)."""
        self._apart(plane)[blocks[0], :, blocks[1]] = values.view(len(values), 1 << self._log2_h, 1 << self._log2_w)

    def _apart(self, plane: Tensor) -> Tensor:
        """(H, W) as (h, rows of a block, w, columns of a block)."""
        h, w = self.low.shape
        return plane.view(h, 1 << self._log2_h, w, 1 << self._log2_w)


def _lab_to_linear(L: Tensor, ab: Tensor, to_linear: Tensor) -> Tensor:
    """(3, P) linear R, G and B, not clipped, of (h, w) L* and (2, h, w) ab.

    ``to_linear`` (3, 3) takes X/Xn, Y/Yn and Z/Zn to them.
    """
    f = torch.empty(3, L.numel(), device=L.device)
    torch.div(L.flatten().add(16), 116, out=f[1])
    torch.add(f[1], ab[0].flatten(), alpha=1 / 500, out=f[0])
    torch.sub(f[1], ab[1].flatten(), alpha=1 / 200, out=f[2])
    curved = f.clamp_min(_DELTA)  # CIE Lab's f(t) turned round: f^3, continued below 6/29 by its tangent
    xyz = f.sub_(curved).mul_(3 * _DELTA**2).addcmul_(curved * curved, curved)
    return to_linear @ xyz


def _encode(linear: Tensor, to_ycbcr: Tensor) -> Tensor:
    """(3, P) Y', Cb, Cr of (3, P) linear R, G, B, which are clipped to 0..1 and overwritten.

    The same as `color.lab_to_rgb` and `color.rgb_to_ycbcr`, to 1e-5, without branches and powers.
    """
    root = linear.clamp(_SRGB_KNEE, 1).sqrt_().sqrt_()
    encoded = root * _SRGB_POLYNOMIAL[-1]
    for coefficient in _SRGB_POLYNOMIAL[-2:0:-1]:
        encoded = encoded.add_(coefficient).mul_(root)
    toe = linear.clamp_(0, _SRGB_KNEE).sub_(_SRGB_KNEE)
    return to_ycbcr @ encoded.add_(_SRGB_POLYNOMIAL[0]).add_(toe, alpha=12.92)


def _ycbcr_matrix(name: str) -> Tensor:
    """(3, 3): Y', Cb, Cr of R', G', B'."""
    kr, kb = MATRICES[name]
    y = torch.tensor([kr, 1 - kr - kb, kb])
    cb = (torch.tensor([0.0, 0.0, 1.0]) - y) / (2 * (1 - kb))
    cr = (torch.tensor([1.0, 0.0, 0.0]) - y) / (2 * (1 - kr))
    return torch.stack([y, cb, cr])


def _pad(luma: Tensor, height_px: int, width_px: int) -> Tensor:
    """(N, H, W), its last row and column repeated up to the size given."""
    n, h, w = luma.shape
    if h < height_px:
        luma = torch.cat([luma, luma[:, -1:].expand(n, height_px - h, w)], dim=1)
    if w < width_px:
        luma = torch.cat([luma, luma[:, :, -1:].expand(n, height_px, width_px - w)], dim=2)
    return luma


# Rows of XYZ -> linear RGB with the white point multiplied in, for X/Xn, Y/Yn, Z/Zn.
_LAB_XYZ_TO_RGB = tuple(tuple(v * w for v, w in zip(row, color.WHITE_XYZ, strict=True)) for row in color.XYZ_TO_RGB)
_DELTA = 6 / 29
_SRGB_KNEE = 0.0031308
# 1.055 x^(1/2.4) - 0.055 on [knee, 1] as a polynomial in x^(1/4), fitted to a largest error of 6.6e-6.
_SRGB_POLYNOMIAL = (-0.0613407186, 0.1620305701, 1.2553909029, -0.5774633410, 0.2895203549, -0.0681443619)


def place_chroma(
    ab: Tensor,
    height_px: int,
    width_px: int,
    picture: Rectangle | None,
    full_h: int,
    full_w: int,
    method: ChromaUpsampling = "bicubic",
    L: Tensor | None = None,
) -> Tensor:
    """(N, 2, h, w) ab of ``picture``, a part of a full_h x full_w frame, at (height_px, width_px); zero outside it.

    ``L`` is the whole frame's, (N, 1, full_h, full_w); the guided ``method`` needs it.
    """
    if L is not None:
        L = resize_area(L, height_px, width_px)
    if picture is None or picture.fills(full_h, full_w):
        return upsample_ab(ab, height_px, width_px, method, L)
    scale_y, scale_x = height_px / full_h, width_px / full_w
    top, bottom = round(picture.top * scale_y), max(round(picture.bottom * scale_y), 1)
    left, right = round(picture.left * scale_x), max(round(picture.right * scale_x), 1)
    placed = ab.new_zeros(ab.shape[0], 2, height_px, width_px)
    inside = None if L is None else L[..., top:bottom, left:right]
    placed[:, :, top:bottom, left:right] = upsample_ab(ab, bottom - top, right - left, method, inside)
    return placed
