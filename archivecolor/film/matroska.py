"""What PyAV does not reach of Matroska (RFC 9559): the display size of a finished file, the crop of a source."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from pathlib import Path
from typing import Final

_SEGMENT: Final = b"\x18\x53\x80\x67"
_SEEK_HEAD: Final = b"\x11\x4d\x9b\x74"
_SEEK: Final = b"\x4d\xbb"
_SEEK_POSITION: Final = b"\x53\xac"
_VOID: Final = b"\xec"
_CRC32: Final = b"\xbf"
_TRACKS: Final = b"\x16\x54\xae\x6b"
_TRACK_ENTRY: Final = b"\xae"
_TRACK_NUMBER: Final = b"\xd7"
_VIDEO: Final = b"\xe0"
_DISPLAY_WIDTH: Final = b"\x54\xb0"
_DISPLAY_HEIGHT: Final = b"\x54\xba"
_DISPLAY_UNIT: Final = b"\x54\xb2"
_PIXEL_CROPS: Final = (b"\x54\xbb", b"\x54\xaa", b"\x54\xcc", b"\x54\xdd")  # top, bottom, left, right
_CLUSTER: Final = b"\x1f\x43\xb6\x75"
_FIRST_BYTES: Final = 1 << 20
_HEAD_BYTES: Final = 64 << 20  # attachments may stand before the first cluster


class LayoutError(ValueError):
    """The file is not laid out as FFmpeg's muxer does."""


@dataclass(frozen=True)
class _Element:
    identity: bytes
    start: int
    payload: int
    end: int


def _elements(data: bytes, start: int, end: int) -> Iterator[_Element]:
    """The elements between two offsets, without going into them."""
    while start < end:
        id_length = 9 - data[start].bit_length() if data[start] else 9
        at = start + id_length
        if id_length > 4 or at >= len(data) or not data[at]:
            raise LayoutError("not an EBML element")
        size_length = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + size_length], "big") & ((1 << 7 * size_length) - 1)
        payload = at + size_length
        yield _Element(data[start:at], start, payload, payload + size)
        start = payload + size


def _encode(identity: bytes, payload: bytes, size_length: int = 1) -> bytes:
    """An element whose size takes at least ``size_length`` bytes."""
    length = next(n for n in range(size_length, 9) if len(payload) < (1 << 7 * n) - 1)
    return identity + (len(payload) | 1 << 7 * length).to_bytes(length, "big") + payload


def _encode_again(element: _Element, payload: bytes) -> bytes:
    """``element`` with another payload and, where that fits, a size as long as before."""
    return _encode(element.identity, payload, element.payload - element.start - len(element.identity))


def _number(value: int) -> bytes:
    """As wide as any two that the muxer may have written with their unit: nothing that follows then moves back."""
    return value.to_bytes(max(4, (value.bit_length() + 7) // 8), "big")


def _with_checksum(parts: list[tuple[bytes, bytes]]) -> bytes:
    """Children (identity, whole element) joined, a CRC-32 in front of them renewed."""
    body = b"".join(element for identity, element in parts if identity != _CRC32)
    if parts and parts[0][0] == _CRC32:
        return _encode(_CRC32, zlib.crc32(body).to_bytes(4, "little")) + body
    return body


def display_size(width_px: int, height_px: int, aspect: Fraction) -> tuple[int, int]:
    """A display size at least as high as the picture whose ratio is exact for a sample aspect."""
    wide, high = width_px * aspect.numerator, height_px * aspect.denominator
    common = gcd(wide, high)
    wide, high = wide // common, high // common
    times = -(-height_px // high)
    return wide * times, high * times


def pixel_crop(path: Path) -> tuple[int, int, int, int]:
    """Lines and columns that a player is asked to hide of the first track that says so: top, bottom, left, right."""
    with path.open("rb") as file:
        data = file.read(_FIRST_BYTES)
    crop = (0, 0, 0, 0)
    try:
        for end_of_way in _inside(data, [_SEGMENT, _TRACKS, _TRACK_ENTRY, _VIDEO]):
            found = {e.identity: int.from_bytes(data[e.payload : e.end], "big") for e in end_of_way}
            crop = tuple(found.get(name, 0) for name in _PIXEL_CROPS)  # type: ignore[assignment]
            if any(crop):
                break
    except (LayoutError, IndexError):
        return crop
    return crop


def _inside(data: bytes, way: list[bytes], start: int = 0, end: int | None = None) -> Iterator[list[_Element]]:
    """The elements in each element that lies at the end of ``way``."""
    elements = _elements(data, start, len(data) if end is None else min(end, len(data)))
    if not way:
        yield list(elements)
        return
    for element in elements:
        if element.identity == way[0]:
            yield from _inside(data, way[1:], element.payload, element.end)
            if way[0] == _TRACKS:
                return


def set_display_size(path: Path, track_number: int, width: int, height: int) -> None:
    """Record a display size for one track of a Matroska file, in place.

    The few bytes come out of the padding that the muxer leaves behind the seek head; elements between it and the
    tracks move forward, their seek entries and checksums are renewed, nothing behind the tracks moves. Raises
    `LayoutError` where the file has no such padding, and leaves it as it was.
    """
    with path.open("r+b") as file:
        data = file.read(_HEAD_BYTES)
        top = list(_elements(data, 0, min(len(data), 4096)))[:2]
        if len(top) < 2 or top[1].identity != _SEGMENT:
            raise LayoutError("no segment")
        origin = top[1].payload
        head: list[_Element] = []
        for element in _elements(data, origin, len(data)):
            head.append(element)
            if element.identity in (_TRACKS, _CLUSTER):
                break
        names = [element.identity for element in head]
        if names[:2] != [_SEEK_HEAD, _VOID] or names[-1] != _TRACKS:
            raise LayoutError("no padding behind the seek head")
        seek_head, void, tracks = head[0], head[1], head[-1]
        new_tracks = _new_tracks(data, tracks, track_number, width, height)
        growth = len(new_tracks) - (tracks.end - tracks.start)
        padding = void.end - void.start - growth
        if padding < 2:
            raise LayoutError("not enough padding")
        size_length = 1 if padding - 2 < 127 else 8
        new_void = _encode(_VOID, bytes(padding - 1 - size_length), size_length)
        new_seek = _new_seek_head(data, seek_head, origin, void.end, tracks.start, growth)
        region = new_seek + new_void + data[void.end : tracks.start] + new_tracks
        if len(region) != tracks.end - seek_head.start:
            raise LayoutError("sizes do not add up")
        file.seek(seek_head.start)
        file.write(region)


def _new_tracks(data: bytes, tracks: _Element, number: int, width: int, height: int) -> bytes:
    parts: list[tuple[bytes, bytes]] = []
    for entry in _elements(data, tracks.payload, tracks.end):
        whole = data[entry.start : entry.end]
        children = list(_elements(data, entry.payload, entry.end)) if entry.identity == _TRACK_ENTRY else []
        if any(
            c.identity == _TRACK_NUMBER and int.from_bytes(data[c.payload : c.end], "big") == number for c in children
        ):
            rebuilt = b""
            for child in children:
                raw = data[child.start : child.end]
                if child.identity == _VIDEO:
                    kept = b"".join(
                        data[e.start : e.end]
                        for e in _elements(data, child.payload, child.end)
                        if e.identity not in (_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT)
                    )
                    shown = _encode(_DISPLAY_WIDTH, _number(width)) + _encode(_DISPLAY_HEIGHT, _number(height))
                    raw = _encode_again(child, kept + shown)
                rebuilt += raw
            whole = _encode_again(entry, rebuilt)
        parts.append((entry.identity, whole))
    return _encode_again(tracks, _with_checksum(parts))


def _new_seek_head(data: bytes, head: _Element, origin: int, first: int, last: int, growth: int) -> bytes:
    """Seek head whose entries between two file offsets point ``growth`` bytes further forward."""
    parts: list[tuple[bytes, bytes]] = []
    for seek in _elements(data, head.payload, head.end):
        raw = bytearray(data[seek.start : seek.end])
        if seek.identity == _SEEK:
            for child in _elements(data, seek.payload, seek.end):
                position = int.from_bytes(data[child.payload : child.end], "big")
                if child.identity == _SEEK_POSITION and first <= origin + position <= last:
                    length = child.end - child.payload
                    at = child.payload - seek.start
                    raw[at : at + length] = (position - growth).to_bytes(length, "big")
        parts.append((seek.identity, bytes(raw)))
    return _encode_again(head, _with_checksum(parts))
