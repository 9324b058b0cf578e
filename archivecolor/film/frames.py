"""What a reader gives: frames of luma, the packets of the other streams between them, and a report."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from fractions import Fraction

from av.packet import Packet
from av.stream import Stream

from archivecolor.film.pixels import Plane

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LumaFrame:
    """One decoded frame.

    ``luma`` is (H, W), uint8 or uint16 in the machine's byte order, code values of the film's bit depth; usually
    a view of the decoder's memory, so treat it as read-only. The frame is shown at ``pts_ticks * time_base`` seconds
    on the source's clock, for ``duration_ticks`` (None when the file does not say). ``top_field_first`` is None for a
    progressive frame.
    """

    luma: Plane
    pts_ticks: int
    time_base: Fraction
    duration_ticks: int | None
    is_corrupt: bool
    top_field_first: bool | None = None

    @property
    def time_s(self) -> Fraction:
        """Presentation time on the source's clock."""
        return self.pts_ticks * self.time_base


@dataclass(frozen=True, slots=True)
class SidePacket:
    """A packet of another stream of the source (sound, subtitles, ...), to be copied as it is."""

    stream_index: int
    packet: Packet[Stream]


@dataclass
class ReadReport:
    """What reading has met so far.

    ``frames`` were decoded and lie in the cut, ``given`` came out of the reader (twice as many where fields became
    frames). ``warnings`` are whole sentences, each once.
    """

    frames: int = 0
    given: int = 0
    deinterlaced: int = 0
    resized_frames: int = 0
    undecodable_packets: int = 0
    corrupt_frames: int = 0
    moved_timestamps: int = 0
    warnings: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """What was counted so far, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, int)}

    def warn(self, text: str) -> None:
        """Note ``text`` once."""
        if text not in self.warnings:
            self.warnings.append(text)
            log.warning("%s", text)
