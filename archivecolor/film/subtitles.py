"""Subtitles as text, from the form that the source's container has them in to the one that the output's can hold."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

import av
import av.error
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.subtitles.codeccontext import SubtitleCodecContext

from archivecolor.film.opening import codec_name

_TEXT_FORMS: Final = {"mov_text", "subrip", "ass", "ssa", "webvtt", "text"}
_FORM_IN: Final = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
_MILLISECOND: Final = Fraction(1, 1000)
_UNSAID_MS: Final = 5000  # how long a text is shown at most whose end is not told


def subtitle_target(stream: Stream, format_name: str) -> str | None:
    """The form of text that a container holds, for subtitles that are text; None for pictures and unknown ones."""
    return _FORM_IN.get(format_name) if codec_name(stream) in _TEXT_FORMS else None


class SubtitleConverter:
    """One track of subtitles from one form of text to another; bold and italics stay where both forms have them."""

    def __init__(self, source: Stream, output: OutputContainer, form: str, offset_s: Fraction) -> None:
        decoder: Any = source.codec_context
        if not decoder.is_open:
            decoder.open()
        self._decoder, self._offset_s = decoder, offset_s
        self._output: Any = output.add_stream(form)
        encoder = self._output.codec_context
        assert isinstance(encoder, SubtitleCodecContext)
        encoder.subtitle_header = decoder.subtitle_header
        encoder.time_base = _MILLISECOND
        self._encoder = encoder
        self.stream: Stream = self._output
        self._needs_end = output.format.name in ("mp4", "mov")
        self._without_end: Any = None
        self.warnings: list[str] = []

    def convert(self, packet: Packet[Stream]) -> Iterator[Packet[Stream]]:
        """The text of ``packet`` in its new form; nothing for the empty packets that fill pauses in MP4."""
        if packet.pts is None:
            return
        own: Any = Packet(bytes(packet))
        own.pts, own.dts, own.duration, own.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
        try:
            text = self._decoder.decode2(own)
            encoded = None if text is None else self._encoder.encode_subtitle(text)
        except (av.error.FFmpegError, ValueError):
            self.warnings[:] = ["some subtitles cannot be decoded"]
            return
        if encoded is None or not encoded.size:
            return
        begins_s = packet.pts * packet.time_base - self._offset_s
        ready: Any = Packet(bytes(encoded))
        ready.pts = ready.dts = round(begins_s / _MILLISECOND)
        ready.duration = round((packet.duration or 0) * packet.time_base / _MILLISECOND)
        ready.time_base, ready.stream = _MILLISECOND, self._output
        yield from self._ended(ready.pts)
        if ready.duration or not self._needs_end:
            yield ready
        else:
            self._without_end = ready

    def finish(self) -> Iterator[Packet[Stream]]:
        """The last text, where its end is not told."""
        yield from self._ended(None)

    def _ended(self, next_ms: int | None) -> Iterator[Packet[Stream]]:
        """The text that waits for its end, shown until the next begins."""
        text, self._without_end = self._without_end, None
        if text is not None:
            text.duration = _UNSAID_MS if next_ms is None else max(1, min(_UNSAID_MS, next_ms - text.pts))
            yield text
