"""Copied PCM in containers that give its samples no times of their own: they simply follow each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final, Self

from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

from archivecolor.film.opening import codec_name
from archivecolor.film.sound import LONGEST_GAP_S, SLIP_S

_NAME: Final = re.compile(r"pcm_(?:[sf]\d+|u8|alaw|mulaw)(?:le|be)?")
_SILENCE: Final = {"pcm_u8": b"\x80", "pcm_alaw": b"\xd5", "pcm_mulaw": b"\xff"}
_CHUNK_S: Final = 1


class PcmClock:
    """Keeps one track of PCM in time: silence where the source's times leave a gap, a cut where they overlap.

    A packet without a time, or with a wrong one (it would be cut altogether), follows the one before. ``added_bytes``
    is by how much the track has grown; ``warnings`` says what was met.
    """

    def __init__(self, stream: AudioStream, bits: int) -> None:
        context = stream.codec_context
        self._rate = context.sample_rate
        self._sample_bytes = bits // 8 * context.layout.nb_channels
        self._index = stream.index
        self._silence = _SILENCE.get(codec_name(stream), b"\0")
        self._next: int | None = None
        self.added_bytes = 0
        self.warnings: list[str] = []

    @classmethod
    def wanted(cls, stream: Stream, output: OutputContainer) -> Self | None:
        """A clock for PCM that goes into MP4 or QuickTime."""
        name = codec_name(stream)
        if not isinstance(stream, AudioStream) or output.format.name not in ("mp4", "mov") or not _NAME.fullmatch(name):
            return None
        digits = re.search(r"\d+", name)
        clock = cls(stream, int(digits[0]) if digits else 8)
        return clock if clock._rate and clock._sample_bytes else None

    def fit(self, packet: Packet[Stream]) -> Iterator[Packet[Any]]:
        """``packet`` at its time, behind silence where that is later than the end of the one before."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        begins = self._next or 0 if stamp is None else round(stamp * packet.time_base * self._rate)
        if self._next is None:
            self._next = begins
        counts_samples = packet.time_base <= Fraction(1, self._rate)
        slip = 1 if counts_samples else SLIP_S * self._rate
        gap = begins - self._next
        content = bytes(packet)
        if slip < gap < LONGEST_GAP_S * self._rate:
            self._warn(f"the sound of stream {self._index} has gaps; filled with silence")
            yield from self._silent(gap)
        elif -len(content) // self._sample_bytes < gap < -slip:
            self._warn(f"sound of stream {self._index} overlaps in time; the later part gives way")
            self.added_bytes += gap * self._sample_bytes
            content = content[-gap * self._sample_bytes :]
        elif abs(gap) > slip or stamp is None:
            self._warn(
                f"some packets of stream {self._index} carry no time, or a wrong one; placed behind the ones before"
            )
        yield self._packet(content)

    def record(self) -> dict[str, int]:
        """For the sidecar."""
        return {"added_bytes": self.added_bytes} if self.added_bytes else {}

    def _silent(self, samples: int) -> Iterator[Packet[Any]]:
        while samples:
            some = min(samples, _CHUNK_S * self._rate)
            samples -= some
            self.added_bytes += some * self._sample_bytes
            yield self._packet(self._silence * (some * self._sample_bytes))

    def _packet(self, content: bytes) -> Packet[Any]:
        assert self._next is not None
        packet: Packet[Any] = Packet(content)
        packet.time_base = Fraction(1, self._rate)
        packet.pts = packet.dts = self._next
        packet.duration = len(content) // self._sample_bytes
        self._next += packet.duration
        return packet

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
