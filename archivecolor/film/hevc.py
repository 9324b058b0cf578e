"""What an HEVC stream's header says of the source that it was coded from; FFmpeg passes it over."""

from __future__ import annotations

from typing import Final, Literal

_SPS: Final = 33  # NAL unit type
_SOURCES: Final[dict[int, Literal["progressive", "interlaced"]]] = {2: "progressive", 1: "interlaced"}


def source_scan(extradata: bytes) -> Literal["progressive", "interlaced"] | None:
    """By general_progressive_source_flag and general_interlaced_source_flag (ITU-T H.265, 7.3.3).

    None where the source is mixed or not told of. ``extradata`` is the codec's: an
    HEVCDecoderConfigurationRecord, or NAL units behind start codes.
    """
    if extradata[:1] == b"\x01":
        return _SOURCES.get(extradata[6] >> 6) if len(extradata) > 6 else None
    for unit in extradata.split(b"\0\0\1"):
        if len(unit) > 2 and unit[0] >> 1 & 0x3F == _SPS:
            content = unit[2:].replace(b"\0\0\3", b"\0\0")  # without emulation prevention
            return _SOURCES.get(content[6] >> 6) if len(content) > 6 else None
    return None
