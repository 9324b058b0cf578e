"""The journal of a film's work: one line of JSON for each segment that is finished and on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from archivecolor.disk import Patience, patiently, sync, write_at
from archivecolor.film import Written, is_as_written


@dataclass(frozen=True)
class Restart:
    """Where to begin decoding so that what comes after a segment is coloured as if nothing had been interrupted.

    Frames are numbered from the first that was decoded of the part. ``number`` and ``time_s``, on the source's clock,
    are those of the frame to begin with, ``shot_start`` is the number of the first frame of the shot that is going on.
    """

    number: int
    time_s: Fraction
    shot_start: int


@dataclass(frozen=True)
class Segment:
    """A finished segment.

    ``first_number`` is the number of its first frame; ``first_s`` and ``last_s`` are the times of its first and last
    frame on the source's clock; ``next_s`` is that of the frame behind it, None at the film's end. ``counts`` is what
    was met on its frames (see `segments.COUNTS`), ``warnings`` what reading has warned of so far.
    """

    name: str
    first_number: int
    frames: int
    size_bytes: int
    sha256: str
    first_s: Fraction
    last_s: Fraction
    next_s: Fraction | None
    restart: Restart | None
    counts: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    device: str = ""
    precision: str = ""

    @property
    def written(self) -> Written:
        """What is on disk of it."""
        return Written(self.frames, self.size_bytes, self.sha256)

    @property
    def ends_part(self) -> bool:
        """Whether nothing comes behind it in its part."""
        return self.restart is None

    def to_line(self) -> bytes:
        """One line of JSON."""
        return json.dumps(asdict(self), default=str).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Segment:
        """The inverse of `to_line`; raises ValueError, KeyError or TypeError for anything else."""
        values: dict[str, Any] = json.loads(line)
        for name in ("first_s", "last_s", "next_s"):
            values[name] = None if values[name] is None else Fraction(values[name])
        if (restart := values["restart"]) is not None:
            values["restart"] = Restart(restart["number"], Fraction(restart["time_s"]), restart["shot_start"])
        values["warnings"] = tuple(values["warnings"])
        return cls(**values)


class Journal:
    """The journal of one part of a film, in the part's folder beside its segments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "journal.jsonl"

    @classmethod
    def of_part(cls, folder: Path, number: int) -> Journal:
        """The journal of a part of the work in ``folder``."""
        return cls(folder / f"part-{number:04d}")

    def read(self) -> list[Segment]:
        """The finished segments; a last line that a crash cut short is none."""
        return [segment for segment, _ in self._entries()]

    def read_checked(self) -> list[Segment]:
        """The finished segments up to the first that is no longer as it was written; the journal is cut there."""
        segments, end = [], 0
        for segment, line_end in self._entries():
            if not is_as_written(self.folder / segment.name, segment.written):
                break
            segments.append(segment)
            end = line_end
        if self.path.exists() and self.path.stat().st_size != end:
            os.truncate(self.path, end)
            sync(self.path)
        return segments

    def _entries(self) -> Iterator[tuple[Segment, int]]:
        """Each whole line, and where it ends."""
        if not self.path.exists():
            return
        end = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            end += len(line)
            try:
                if line.endswith(b"\n"):
                    yield Segment.from_line(line), end
            except (ValueError, KeyError, TypeError):
                return

    def append(self, segment: Segment, wait: Patience) -> None:
        """Record a segment, for good."""
        line, end = segment.to_line(), max((end for _, end in self._entries()), default=0)

        def write() -> None:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                write_at(descriptor, end, line)
                os.ftruncate(descriptor, end + len(line))  # what was left of a line that a crash cut short
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

        patiently(wait, write)
        if end == 0:
            sync(self.folder)
