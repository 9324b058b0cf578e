"""Times of copied sound to the sample, out of containers that count milliseconds."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

from archivecolor.film.opening import codec_name

_SAMPLES_A_PACKET: Final = {
    "aac": 1024,
    "mp2": 1152,
    "mp3": 1152,
    "ac3": 1536,
    "alac": 4096,
}  # at most; a decoder knows better
_OPUS_HZ: Final = 48000
# Samples of an Opus frame at 48 kHz, by the upper five bits of a packet's first byte (RFC 6716, 3.1).
_OPUS_FRAMES: Final = (*(480, 960, 1920, 2880) * 3, *(480, 960) * 2, *(120, 240, 480, 960) * 4)
_SLIP_TICKS: Final = Fraction(3, 2)  # two roundings: of the time, and of the decoder's delay


def opus_samples(packet: bytes) -> int:
    """Samples at 48 kHz in an Opus packet, 0 for one that is none."""
    if not packet:
        return 0
    frames = (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[packet[0] & 3]
    return frames * _OPUS_FRAMES[packet[0] >> 3]


class SampleClock:
    """Counts the samples of one track of copied sound, and gives each packet its time by them.

    The container's own times, which are rounded, only say where the track begins and where it has a gap.
    """

    def __init__(self, stream: AudioStream) -> None:
        context = stream.codec_context
        self._is_opus = codec_name(stream) == "opus"
        self._rate = _OPUS_HZ if self._is_opus else context.sample_rate
        self._samples = context.frame_size or _SAMPLES_A_PACKET.get(codec_name(stream), 0)
        self._correction = 0
        if self._is_opus and context.extradata is not None and stream.time_base is not None:
            # Matroska's times come with the decoder's delay taken off, rounded to a tick.
            delay = int.from_bytes(bytes(context.extradata)[10:12], "little")
            ticks = int(Fraction(delay, _OPUS_HZ) / stream.time_base + Fraction(1, 2))
            self._correction = round(ticks * stream.time_base * _OPUS_HZ) - delay
        self._next: int | None = None

    @classmethod
    def wanted(cls, stream: Stream, output: OutputContainer) -> SampleClock | None:
        """A clock where ``output`` counts finer than ``stream``'s container and a packet's samples can be told."""
        known = codec_name(stream) == "opus" or codec_name(stream) in _SAMPLES_A_PACKET
        if not known or not isinstance(stream, AudioStream) or output.format.name not in ("mp4", "mov"):
            return None
        rate = stream.codec_context.sample_rate
        return cls(stream) if rate and stream.time_base and stream.time_base > Fraction(1, rate) else None

    def retime(self, packet: Packet[Stream]) -> None:
        """Give ``packet`` its time and duration in samples."""
        samples = opus_samples(bytes(packet)) if self._is_opus else self._samples
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or not samples:
            return
        given = round(stamp * packet.time_base * self._rate) + self._correction
        slip = _SLIP_TICKS * packet.time_base * self._rate
        begins = given if self._next is None or abs(given - self._next) > slip else self._next
        self._next = begins + samples
        packet.pts = packet.dts = begins
        packet.duration = max(1, samples - _discarded(packet))
        packet.time_base = Fraction(1, self._rate)


def _discarded(packet: Packet[Stream]) -> int:
    """Samples at a packet's end that are not to be heard."""
    for data in packet.iter_sidedata():
        entry: Any = data
        if entry.data_type == "skip_samples":
            return int.from_bytes(bytes(entry)[4:8], "little")
    return 0
