"""ICC profiles (ICC.1): a grey picture's, made to fit the R'G'B' picture that it becomes."""

from __future__ import annotations

import struct
from typing import Final

from PIL import ImageCms

_HEADER_BYTES, _ENTRY_BYTES = 128, 12
_DATE: Final = slice(24, 36)
_MOST_TAGS: Final = 100


def colour_space(profile: bytes) -> str:
    """What a profile's values are, such as ``RGB`` or ``GRAY``."""
    return profile[16:20].decode("latin-1").strip()


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """The tagged elements by signature; empty where the profile is not laid out as one."""
    if len(profile) < _HEADER_BYTES + 4:
        return {}
    (count,) = struct.unpack_from(">L", profile, _HEADER_BYTES)
    if count > _MOST_TAGS or len(profile) < _HEADER_BYTES + 4 + count * _ENTRY_BYTES:
        return {}
    entries = struct.iter_unpack(">4sLL", profile[_HEADER_BYTES + 4 :][: count * _ENTRY_BYTES])
    return {signature: profile[offset : offset + size] for signature, offset, size in entries}


def rgb_profile(grey: bytes) -> bytes | None:
    """An RGB profile with sRGB's primaries and ``grey``'s tone curve: R' = G' = B' looks as it does in ``grey``.

    None where ``grey`` has no tone curve.
    """
    curve = _tags(grey).get(b"kTRC")
    if curve is None or curve[:4] not in (b"curv", b"para"):
        return None
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    words = "sRGB primaries, tone curve of the grey source".encode("utf-16-be")
    tags = _tags(srgb) | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    tags[b"desc"] = b"mluc" + struct.pack(">LLL2s2sLL", 0, 1, 12, b"en", b"US", len(words), 28) + words
    table, body = struct.pack(">L", len(tags)), b""
    start = _HEADER_BYTES + 4 + len(tags) * _ENTRY_BYTES
    placed: dict[bytes, int] = {}  # the three curves share one element
    for signature, data in tags.items():
        if data not in placed:
            placed[data] = start + len(body)
            body += data + b"\0" * (-len(data) % 4)
        table += struct.pack(">4sLL", signature, placed[data], len(data))
    header = bytearray(srgb[:_HEADER_BYTES])
    header[:4] = struct.pack(">L", start + len(body))
    header[_DATE] = grey[_DATE]
    return bytes(header) + table + body
