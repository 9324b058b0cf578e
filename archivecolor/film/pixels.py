"""Pixel formats: which part of a decoded frame is luma, how deep it is, and how to see it without a copy."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import av
import numpy as np
import numpy.typing as npt

from archivecolor.matrices import MATRICES

Plane = npt.NDArray[Any]
Layout = Literal["planar", "high_bits", "packed", "rgb", "bilevel", "convert"]

# Packed Y'CbCr in which luma is every second sample, by the place of the first one.
_EVERY_SECOND: Final = {"yuyv422": 0, "yvyu422": 0, "uyvy422": 1, "ya8": 0, "ya16le": 0, "ya16be": 0}
# Other packed Y'CbCr, and the planar format that holds the same samples.
_PLANAR_EQUAL: Final = {
    "uyyvyy411": "yuv411p",
    "y210le": "yuv422p10le",
    "y210be": "yuv422p10le",
    "y212le": "yuv422p12le",
    "y212be": "yuv422p12le",
    "y216le": "yuv422p16le",
    "y216be": "yuv422p16le",
    "ayuv": "yuv444p",
    "vuya": "yuv444p",
    "vuyx": "yuv444p",
    "uyva": "yuv444p",
    "vyu444": "yuv444p",
    "xv30le": "yuv444p10le",
    "xv30be": "yuv444p10le",
    "v30xle": "yuv444p10le",
    "v30xbe": "yuv444p10le",
    "xv36le": "yuv444p12le",
    "xv36be": "yuv444p12le",
    "xv48le": "yuv444p16le",
    "xv48be": "yuv444p16le",
    "ayuv64le": "yuv444p16le",
    "ayuv64be": "yuv444p16le",
}
_RGB_PACKED: Final = {
    "rgb24": (3, (0, 1, 2)),
    "bgr24": (3, (2, 1, 0)),
    "rgba": (4, (0, 1, 2)),
    "rgb0": (4, (0, 1, 2)),
    "bgra": (4, (2, 1, 0)),
    "bgr0": (4, (2, 1, 0)),
    "argb": (4, (1, 2, 3)),
    "0rgb": (4, (1, 2, 3)),
    "abgr": (4, (3, 2, 1)),
    "0bgr": (4, (3, 2, 1)),
    "rgb48": (3, (0, 1, 2)),
    "bgr48": (3, (2, 1, 0)),
    "rgba64": (4, (0, 1, 2)),
    "bgra64": (4, (2, 1, 0)),
}


class UnusablePixelFormatError(ValueError):
    """A pixel format whose picture has no integer luma: floating point, raw sensor mosaics, X'Y'Z'."""


@dataclass(frozen=True)
class PixelFormat:
    """What there is to know of a pixel format before its samples are touched.

    ``bit_depth`` is 8..16; ``log2_chroma`` is (log2 of the horizontal, of the vertical) chroma subsampling, or None
    for gray and RGB.
    """

    name: str
    layout: Layout
    bit_depth: int
    log2_chroma: tuple[int, int] | None
    has_alpha: bool
    is_gray: bool
    is_rgb: bool

    @property
    def full_range_untagged(self) -> bool:
        """Range when the stream says nothing: full for RGB, ``yuvj*`` and gray (as FFmpeg's scaler has it)."""
        return self.is_gray or self.is_rgb or self.name.startswith("yuvj")


@lru_cache(maxsize=64)
def pixel_format(name: str) -> PixelFormat:
    """Look ``name`` up; raises `UnusablePixelFormatError` when no luma can be had of it."""
    fmt = av.VideoFormat(name, 64, 64)
    parts = fmt.components
    if not parts:
        raise UnusablePixelFormatError(f"pixel format {name} lives in a device's memory")
    odd = fmt.is_bayer or name.startswith("xyz12") or re.search(r"f(16|32)(le|be)?$", name)
    if odd or max(part.bits for part in parts) > 16 or (fmt.is_bit_stream and fmt.is_rgb):
        raise UnusablePixelFormatError(f"pixel format {name} (floating point, sensor mosaic or X'Y'Z')")
    bits = max(8, parts[0].bits)
    alpha = any(part.is_alpha for part in parts)
    gray = len(parts) - alpha == 1 and not fmt.has_palette
    if fmt.is_rgb or fmt.has_palette:
        deepest = max(8, *(part.bits for part in parts))
        return PixelFormat(name, "rgb", 16 if deepest > 12 else deepest, None, alpha, False, True)
    if name in ("monob", "monow"):
        return PixelFormat(name, "bilevel", 8, None, False, True, False)
    chroma = None
    if not gray:
        width, height = fmt.chroma_width(64), fmt.chroma_height(64)
        chroma = (64 // width).bit_length() - 1, (64 // height).bit_length() - 1
    layout: Layout = "planar"
    if name in _EVERY_SECOND:
        layout = "packed"
    elif name in _PLANAR_EQUAL:
        layout = "convert"
        bits = av.VideoFormat(_PLANAR_EQUAL[name]).components[0].bits
    elif re.match(r"p[024]1[0-6](le|be)", name) or "msb" in name or name.startswith("nv20"):
        layout = "planar" if name.startswith("nv20") else "high_bits"
    elif sum(part.plane == 0 for part in parts) != 1:
        raise UnusablePixelFormatError(f"pixel format {name}")
    return PixelFormat(name, layout, bits, chroma, alpha, gray, False)


def plane_view(frame: av.VideoFrame, index: int, samples: int = 1) -> Plane:
    """Plane ``index`` as (H, W) or, with ``samples`` per pixel, (H, W, samples): a view that keeps the frame alive.

    dtype uint8 or uint16, in the byte order of the format. Lines stored bottom up come out top down.
    """
    plane = frame.planes[index]
    fmt = frame.format
    if fmt.components[0].bits > 8:
        dtype: np.dtype[Any] = np.dtype(">u2" if fmt.is_big_endian else "<u2")
    else:
        dtype = np.dtype(np.uint8)
    stride = abs(plane.line_size)
    shape: tuple[int, ...] = (plane.height, plane.width)
    strides: tuple[int, ...] = (stride, samples * dtype.itemsize)
    if samples > 1:
        shape, strides = (*shape, samples), (*strides, dtype.itemsize)
    if plane.line_size < 0:
        strides, offset = (-stride, *strides[1:]), (plane.height - 1) * stride
    else:
        offset = 0
    buffer: Any = plane
    return np.ndarray(shape, dtype, buffer=buffer, offset=offset, strides=strides)


def _native(plane: Plane) -> Plane:
    """Same values in the machine's byte order; a copy only where the order differs."""
    if plane.dtype.itemsize == 2 and plane.dtype.byteorder not in ("=", "|"):
        little = plane.dtype.byteorder == "<"
        return plane if little == (sys.byteorder == "little") else plane.astype(np.uint16)
    return plane


def luma_plane(frame: av.VideoFrame, matrix: str) -> Plane:
    """Luma of a decoded frame, (H, W) uint8 or uint16 code values of `PixelFormat.bit_depth` bits.

    Y'CbCr and gray give the decoder's own plane, not a copy, wherever it is stored plane by plane in the machine's
    byte order. R'G'B' is weighed with ``matrix`` (a key of `MATRICES`) so that R' = G' = B' gives that value.
    """
    known = pixel_format(frame.format.name)
    if known.layout == "planar":
        return _native(plane_view(frame, 0))
    if known.layout == "high_bits":
        return _native(plane_view(frame, 0)) >> (16 - known.bit_depth)
    if known.layout == "packed":
        return _native(plane_view(frame, 0, 2))[:, :, _EVERY_SECOND[known.name]]
    if known.layout == "convert":
        return plane_view(frame.reformat(format=_PLANAR_EQUAL[known.name]), 0)
    if known.layout == "bilevel":
        return plane_view(frame.reformat(format="gray"), 0)
    return rgb_to_luma(*rgb_planes(frame), matrix)


def rgb_planes(frame: av.VideoFrame) -> tuple[Plane, Plane, Plane]:
    """R', G', B' of an RGB or palette frame, each (H, W), full range at the format's depth."""
    name = frame.format.name
    known = pixel_format(name)
    base = re.sub(r"(le|be)$", "", name)
    if base in _RGB_PACKED:
        samples, (r, g, b) = _RGB_PACKED[base]
        pixels = _native(plane_view(frame, 0, samples))
        return pixels[:, :, r], pixels[:, :, g], pixels[:, :, b]
    if base.startswith("gbr"):
        green, blue, red = (_native(plane_view(frame, index)) for index in range(3))
        stored = frame.format.components[0].bits
        if "msb" in name:
            red, green, blue = red >> (16 - stored), green >> (16 - stored), blue >> (16 - stored)
        if stored < known.bit_depth:
            return _widen(red, stored), _widen(green, stored), _widen(blue, stored)
        return red, green, blue
    return rgb_planes(frame.reformat(format="rgb24" if known.bit_depth == 8 else "gbrp10le"))


def _widen(plane: Plane, bits: int) -> Plane:
    """Full-range values of 14 bits spread over 16, black to black and white to white."""
    return (plane << (16 - bits)) | (plane >> (2 * bits - 16))


def rgb_to_luma(r: Plane, g: Plane, b: Plane, matrix: str) -> Plane:
    """Full-range luma of R'G'B' planes in their own dtype; exact for R' = G' = B' (weights sum to 2^16)."""
    kr, kb = MATRICES[matrix]
    weight_r, weight_b = round(kr * 65536), round(kb * 65536)
    weight_g = 65536 - weight_r - weight_b
    total = r.astype(np.uint32) * np.uint32(weight_r)
    total += g.astype(np.uint32) * np.uint32(weight_g)
    total += b.astype(np.uint32) * np.uint32(weight_b)
    total += np.uint32(32768)
    return (total >> np.uint32(16)).astype(r.dtype)


def chroma_deviation(frame: av.VideoFrame) -> float:
    """Mean distance of a frame's chroma from neutral, in 8-bit code values: 0 for a grey picture.

    For R'G'B' the mean of max - min over the three channels, halved, which is about what Cb and Cr would show.
    """
    known = pixel_format(frame.format.name)
    if known.is_gray:
        return 0.0
    step = max(1, min(frame.width, frame.height) // 240)  # a thinned picture is enough for a mean
    if known.is_rgb:
        r, g, b = (plane[::step, ::step].astype(np.int32) for plane in rgb_planes(frame))
        spread = np.maximum(np.maximum(r, g), b) - np.minimum(np.minimum(r, g), b)
        return float(spread.mean()) / 2 / (1 << (known.bit_depth - 8))
    if known.layout in ("packed", "convert"):
        planar = _PLANAR_EQUAL.get(known.name, "yuv422p")
        return chroma_deviation(frame.reformat(format=planar))
    shift = 16 - known.bit_depth if known.layout == "high_bits" else 0
    if len({part.plane for part in frame.format.components if not part.is_alpha}) == 2:
        chroma = [_native(plane_view(frame, 1, 2)) >> shift]
    else:
        chroma = [_native(plane_view(frame, index)) >> shift for index in (1, 2)]
    neutral = 1 << (known.bit_depth - 1)
    mean = sum(float(np.abs(p[::step, ::step].astype(np.int32) - neutral).mean()) for p in chroma) / len(chroma)
    return mean / (1 << (known.bit_depth - 8))
