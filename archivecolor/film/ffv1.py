"""Checksums of FFV1 slices (RFC 9043, 4.9); FFmpeg's decoder conceals a damaged slice with no more than a log line."""

from __future__ import annotations

import zlib
from typing import Final

_FOOTER_BYTES: Final = 8  # slice_size (3), error_status (1), slice_crc_parity (4)
_BITS_REVERSED: Final = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def slice_checksums(packet: bytes) -> list[bool] | None:
    """Whether each slice of a frame is whole; None where the frame is not laid out as slices with checksums.

    The CRC-32 over a whole slice, parity included, is 0: polynomial 0x04C11DB7 from the highest bit on, beginning
    with 0. That is zlib's of the bytes with their bits reversed, without its inversions.
    """
    whole = []
    end = len(packet)
    while end > 0:
        if end < _FOOTER_BYTES:
            return None
        start = end - _FOOTER_BYTES - int.from_bytes(packet[end - 8 : end - 5], "big")
        if start < 0:
            return None
        body = packet[start:end].translate(_BITS_REVERSED)
        whole.append(zlib.crc32(body, 0xFFFFFFFF) == 0xFFFFFFFF)
        end = start
    return whole[::-1]


class SliceCheck:
    """Looks at the frames of one film; a film without checksums has no frame with a right one."""

    def __init__(self) -> None:
        self._has_checksums = False

    def is_damaged(self, packet: bytes) -> bool:
        """Whether a slice of this frame has a wrong checksum, in a film that has been seen to have them."""
        found = slice_checksums(packet)
        self._has_checksums |= any(found or [])
        return self._has_checksums and (found is None or not all(found))
