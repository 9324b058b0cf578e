"""Sound that the output's container cannot carry, decoded and encoded again; without loss where the container can."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import av
import av.error
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.packet import Packet
from av.stream import Stream

from archivecolor.film.channels import usual_layout
from archivecolor.film.opening import in_words

SLIP_S: Final = Fraction(1, 25)  # timestamps of sound waver by some ms where they do not count samples
LONGEST_GAP_S: Final = 4 * 3600  # a longer one is a wrong timestamp
_CHUNK: Final = 1 << 16
_OPUS_RATES: Final = (48000, 24000, 16000, 12000, 8000)
_OPUS_BITS_A_CHANNEL: Final = 128_000
_SIXTEEN_BITS: Final = {"u8", "u8p", "s16", "s16p"}
# MP4 holds PCM since ISO/IEC 23003-5, but few players know; ALAC is the same samples, and they play it.
_ALAC_IN_MP4: Final = {
    f"pcm_{name}" for name in ("s8", "u8", "s16le", "s16be", "s24le", "s24be", "alaw", "mulaw", "dvd", "bluray")
}
_FLOATS: Final = {"flt", "fltp", "dbl", "dblp"}


@dataclass(frozen=True)
class SoundTarget:
    """What a track of sound becomes: an encoder, its sample format and rate in Hz."""

    encoder: str
    sample_format: str
    rate_hz: int
    layout: str
    lossless: bool = True

    @property
    def in_words(self) -> str:
        """For a warning: the codec, and what the conversion costs."""
        if self.encoder == "libopus":
            return "Opus, which is lossy"
        bits = {"s16": 16, "s16p": 16, "s32": 24, "s32p": 24, "flt": 32}[self.sample_format]
        name = {"alac": "ALAC", "flac": "FLAC"}.get(self.encoder, "PCM")
        kind = " floating point" if self.sample_format == "flt" else ""
        return f"{name}, {bits} bit{kind}{', without loss' if self.lossless else ''}"


def is_better_converted(codec: str, format_name: str) -> bool:
    """Whether sound that a container can hold is silent there in many players, and converts without loss."""
    return format_name == "mp4" and codec in _ALAC_IN_MP4


def sound_target(stream: Stream, format_name: str) -> SoundTarget | None:
    """What ``stream`` is converted to for a container that cannot hold it; None when it cannot be decoded.

    Lossless in every container but WebM, which holds Opus and Vorbis only. Lossy sound that decodes to floating point
    keeps 24 bits, or 32 where the container takes floating point.
    """
    if not isinstance(stream, AudioStream):
        return None
    context: Any = stream.codec_context
    if context is None or not context.rate or context.format is None or not context.layout.nb_channels:
        return None
    decoded, rate, layout = context.format.name, int(context.rate), usual_layout(context.layout)
    narrow, floating = decoded in _SIXTEEN_BITS, decoded in _FLOATS
    if format_name == "webm":
        rate = rate if rate in _OPUS_RATES else 48000
        opus = SoundTarget("libopus", "flt", rate, layout, lossless=False)
        return _first_that_opens([opus, replace(opus, layout="stereo")])
    if format_name == "mp4":
        alac = SoundTarget("alac", "s16p" if narrow else "s32p", rate, layout, lossless=not floating)
        wanted = [alac, replace(alac, encoder="flac", sample_format="s16" if narrow else "s32")]  # of any layout
    elif format_name == "mov":
        wanted = []
    else:
        wanted = [] if floating else [SoundTarget("flac", "s16" if narrow else "s32", rate, layout)]
    pcm = ("pcm_s16le", "s16") if narrow else ("pcm_f32le", "flt") if floating else ("pcm_s24le", "s32")
    return _first_that_opens([*wanted, SoundTarget(*pcm, rate, layout)])


def _first_that_opens(targets: list[SoundTarget]) -> SoundTarget | None:
    for target in targets:
        context = av.CodecContext.create(target.encoder, "w")
        assert isinstance(context, AudioCodecContext)
        configure_sound(context, target)
        try:
            context.open()
        except (av.error.FFmpegError, ValueError):
            continue
        return target
    return None


def configure_sound(context: AudioCodecContext, target: SoundTarget) -> None:
    """Set an encoder up for ``target``; before it is opened."""
    context.format = target.sample_format
    context.layout = target.layout
    context.sample_rate = target.rate_hz
    context.time_base = Fraction(1, target.rate_hz)
    if target.encoder == "libopus":
        context.bit_rate = _OPUS_BITS_A_CHANNEL * context.layout.nb_channels


class SoundConverter:
    """One track of sound on its way through a decoder and ``output``'s encoder, each sample at its own time.

    Where the source's timestamps leave a gap there is silence, where they overlap the later sound gives way: then
    sample number and time agree over the whole track. A single time that the next one contradicts, as that of the first
    Vorbis packet of an Ogg page can be, counts for nothing. ``warnings`` says what was met.
    """

    def __init__(self, source: AudioStream, output: AudioStream, target: SoundTarget, offset_s: Fraction) -> None:
        self._source, self._output, self._target = source, output, target
        self._offset_s = offset_s
        self._resampler = AudioResampler(target.sample_format, target.layout, target.rate_hz)
        self._fifo = AudioFifo()
        self._held: AudioFrame | None = None  # the newest frame, until the time of the one behind it is known
        self._next: int | None = None  # sample number, at the target's rate, of what comes next from the decoder
        self._written = 0
        self.warnings: list[str] = []

    def convert(self, packet: Packet[Stream]) -> Iterator[Packet[AudioStream]]:
        """Encoded packets that are ready once ``packet`` of the source has gone in."""
        own: Any = Packet(bytes(packet))
        own.pts, own.dts, own.time_base = packet.pts, packet.dts, packet.time_base
        for kind, data in ((data.data_type, data) for data in packet.iter_sidedata()):
            if kind in ("skip_samples", "new_extradata", "param_change"):
                own.set_sidedata(data)
        yield from self._encode_all(self._decode(own))

    def finish(self) -> Iterator[Packet[AudioStream]]:
        """What decoder and encoder still hold."""
        yield from self._encode_all(self._decode(None))
        yield from self._encode(None)
        for frame in self._resampler.resample(None):
            self._fifo.write(_untimed(frame))
        yield from self._drain(last=True)
        yield from self._output.encode(None)

    def _decode(self, packet: Any) -> list[AudioFrame]:
        try:
            return list(self._source.codec_context.decode(packet))
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self._warn(f"some packets of the sound, stream {self._source.index}, cannot be decoded ({in_words(error)})")
            return []

    def _encode_all(self, frames: list[AudioFrame]) -> Iterator[Packet[AudioStream]]:
        for frame in frames:
            yield from self._encode(frame)

    def _encode(self, behind: AudioFrame | None) -> Iterator[Packet[AudioStream]]:
        """Place the frame that is held, now that the one ``behind`` it is there."""
        frame, self._held = self._held, behind
        if frame is None:
            return
        begins_s, next_s = self._time_s(frame), None if behind is None else self._time_s(behind)
        counts_samples = frame.time_base == Fraction(1, frame.sample_rate)
        slip_s = Fraction(1, frame.sample_rate) if counts_samples else SLIP_S
        if self._next is not None and next_s is not None:
            end_s = Fraction(self._next, self._target.rate_hz) + Fraction(frame.samples, frame.sample_rate)
            if abs(next_s - end_s) <= slip_s:
                begins_s = None
        for part in self._resampler.resample(frame):
            self._place(part, begins_s, slip_s)
            begins_s = None
        yield from self._drain()

    def _time_s(self, frame: AudioFrame) -> Fraction | None:
        return None if frame.pts is None else frame.pts * Fraction(frame.time_base or 1) - self._offset_s

    def _place(self, part: AudioFrame, begins_s: Fraction | None, slip_s: Fraction) -> None:
        """Put samples behind those before, with silence or a cut between where their times ask for it."""
        rate = self._target.rate_hz
        begins = None if begins_s is None else round(begins_s * rate)
        if self._next is None:
            self._next = self._written = begins or 0
        if begins is not None and slip_s * rate < begins - self._next < LONGEST_GAP_S * rate:
            self._fill(begins - self._next)
        elif begins is not None and self._next - begins > slip_s * rate:
            cut = min(self._next - begins, part.samples)
            self._warn(f"sound of stream {self._source.index} overlaps in time; the later part gives way")
            if cut == part.samples:
                return
            part = self._without_beginning(part, cut)
        self._fifo.write(_untimed(part))
        self._next += part.samples

    def _fill(self, samples: int) -> None:
        self._warn(f"the sound of stream {self._source.index} has gaps; filled with silence")
        assert self._next is not None
        self._next += samples
        while samples:
            some = min(samples, _CHUNK)
            silence = AudioFrame(self._target.sample_format, self._target.layout, some)
            for plane in silence.planes:
                plane.update(bytes(plane.buffer_size))
            silence.sample_rate = self._target.rate_hz
            self._fifo.write(_untimed(silence))
            samples -= some

    def _without_beginning(self, part: AudioFrame, samples: int) -> AudioFrame:
        values: Any = part.to_ndarray()
        per_sample = 1 if part.format.is_planar else part.layout.nb_channels
        rest: Any = np.ascontiguousarray(values[:, samples * per_sample :])
        shorter = AudioFrame.from_ndarray(rest, part.format.name, part.layout.name)
        shorter.sample_rate = part.sample_rate
        return shorter

    def _drain(self, last: bool = False) -> Iterator[Packet[AudioStream]]:
        size = self._output.codec_context.frame_size
        while self._fifo.samples >= (size or 1) or (last and self._fifo.samples):
            frame = self._fifo.read(min(size, self._fifo.samples) if size else 0, partial=last)
            if frame is None:
                return
            frame.pts, frame.time_base = self._written, Fraction(1, self._target.rate_hz)
            self._written += frame.samples
            yield from self._output.encode(frame)

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def _untimed(frame: AudioFrame) -> AudioFrame:
    frame.pts = None
    return frame
