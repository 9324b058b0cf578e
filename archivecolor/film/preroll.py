"""Sound that an edit list hides in front of a film: a container without edit lists would let it be heard."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Self

from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

from archivecolor.film.opening import codec_name

_WITHOUT_LOSS: Final = ("pcm_", "flac", "alac", "wavpack", "tta")
_MOST_KEPT: Final = 2  # packets that a decoder has to have seen before the first one that is heard


class Preroll:
    """Leaves out the packets of one track that the source never plays, but for the last ones, which prime the decoder.

    ``left_out`` is how many.
    """

    def __init__(self, codec: str) -> None:
        self._most = 0 if codec.startswith(_WITHOUT_LOSS) else _MOST_KEPT
        self._hidden: deque[Packet[Any]] = deque()
        self._begun = False
        self.left_out = 0
        self.warnings: tuple[str, ...] = ()

    @classmethod
    def wanted(cls, stream: Stream, output: OutputContainer) -> Self | None:
        """For sound that is copied into Matroska or WebM."""
        is_wanted = isinstance(stream, AudioStream) and output.format.name in ("matroska", "webm")
        return cls(codec_name(stream)) if is_wanted else None

    def fit(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """``packet`` behind what it needs, or nothing yet."""
        if self._begun:
            return [packet]
        if not packet.is_discard:
            self._begun = True
            return [*self._hidden, packet]
        self._hidden.append(packet)
        if len(self._hidden) > self._most:
            self._hidden.popleft()
            self.left_out += 1
        return []

    def record(self) -> dict[str, int]:
        """For the sidecar."""
        return {"hidden_packets": self.left_out} if self.left_out else {}
