"""Cutting a film into segments while it is coloured: where one ends, and what has to be known to go on behind it.

A segment ends where a shot ends, once it has a quarter of the longest length, or else at that length. The cuts come
from the same look at the motion that steadies the colour, so that planning takes no pass of its own; colour that is not
steadied has no shots, and needs none.

Colour looks at a shot's frames before and after. What follows a segment is therefore coloured again from a little
before: the beginning of the shot, or so far back in it that what lies before has died away below the precision of
float32, in step with the blocks that a shot is finished in. The frames in between are thrown away, and those that are
kept are those of a run without an interruption, bit for bit.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

from archivecolor.colorize.journal import Journal, Restart, Segment
from archivecolor.colorize.progress import Stop
from archivecolor.colorize.space import Space
from archivecolor.colorize.stages import Batch
from archivecolor.colorize.temporal import BLOCK
from archivecolor.colorize.work import Part
from archivecolor.errors import FilmEncodeError, StoppedError
from archivecolor.film import FilmSegmentWriter, LumaFrame, SequenceSegmentWriter

SHORTEST_PART: Final = 4
"""From this part of the longest length on, a segment ends where a shot ends."""
MARGIN: Final = 8
"""Frames before a shot from which on its beginning is found again, and interlaced pictures are taken apart the same."""
_NOTHING: Final = 2.0**-30
_SEGMENT_SUFFIX: Final = ".segment"

SegmentWriter = FilmSegmentWriter | SequenceSegmentWriter


class RestartError(Exception):
    """The source, sought into, does not give the frames that it gave before."""


def reach(strength: float) -> int:
    """After how many frames nothing is left of a frame's share in the colour of those behind it."""
    return MARGIN if strength == 0 else math.ceil(math.log(_NOTHING) / math.log(strength))


class RestartFinder:
    """Follows the frames that are coloured, and knows where to begin again to go on behind the last of them.

    ``whole_shots`` is for colour that depends on all of a shot before it.
    """

    def __init__(self, strength: float, start: Restart | None, *, whole_shots: bool = False) -> None:
        self._whole_shots = whole_shots
        self._steadied, self._reach = strength > 0 or whole_shots, reach(strength)
        self._given_start = start
        self._shot_start = 0 if start is None else start.shot_start
        self._recent: deque[tuple[int, Fraction]] = deque(maxlen=self._reach + BLOCK + 2 * MARGIN)
        self._shot_restart: tuple[int, Fraction] | None = None

    def follow(self, number: int, time_s: Fraction, begins_shot: bool) -> None:
        """The next frame."""
        self._recent.append((number, time_s))
        is_first = len(self._recent) == 1
        if is_first or (begins_shot and number >= self._shot_start):
            if begins_shot and not (is_first and self._given_start is not None):
                self._shot_start = number
            self._shot_restart = self._at(max(self._recent[0][0], self._shot_start - MARGIN))

    def restart(self, number: int) -> Restart:
        """Where to begin so that frame ``number``, the last one followed, comes out as it did."""
        if not self._steadied:
            place = self._at(max(self._recent[0][0], number - MARGIN))
        elif self._shot_restart is not None and (self._whole_shots or number - self._shot_start <= self._reach + BLOCK):
            place = self._shot_restart
        else:
            back = number - self._reach
            place = self._at(back - (back - self._shot_start) % BLOCK)
        return Restart(place[0], place[1], self._shot_start)

    def _at(self, number: int) -> tuple[int, Fraction]:
        oldest = self._recent[0][0]
        return self._recent[max(0, number - oldest)]


@dataclass(frozen=True)
class _Open:
    """A segment that is being written."""

    writer: SegmentWriter
    first_number: int
    first_s: Fraction


class SegmentSink:
    """Takes one part's coloured batches and makes checked, journalled segments of them.

    Frames that were needed only to find the colours are dropped. Segments are finished in a thread of their own while
    the next one is begun. As a context manager it finishes the last one, or, when the block raises, leaves nothing of
    what was not journalled.

    Args:
        done: the segments that the journal has.
        open_segment: gives the writer of a segment at a path.
        longest, shortest: length of a segment in frames.
        strength, whole_shots: of steadying, see `temporal.Steadier` and `RestartFinder`.
        label: device and precision, for the journal.
        warnings: gives what the user is to know so far.
        expected: about how many frames there will be.

    Raises:
        RestartError: from `take`, when the source does not give again what it gave before.
        StoppedError: from `take`, at the end of a segment, once ``stop`` is set.
    """

    def __init__(
        self,
        part: Part,
        journal: Journal,
        done: list[Segment],
        open_segment: Callable[[Path], SegmentWriter],
        *,
        longest: int,
        shortest: int,
        strength: float,
        whole_shots: bool,
        label: tuple[str, str],
        warnings: Callable[[], list[str]],
        expected: int | None,
        space: Space,
        stop: Stop,
    ) -> None:
        self._part, self._journal, self._open_segment = part, journal, open_segment
        self._longest, self._shortest, self._label = longest, shortest, label
        self._space, self._stop, self._expected = space, stop, expected
        self.segments = list(done)
        last = done[-1] if done else None
        self._start = last.restart if last is not None else None
        self._finder = RestartFinder(strength, self._start, whole_shots=whole_shots)
        self._number = self._start.number if self._start is not None else 0
        self._next = self._first_to_write(last)
        self._previous_s: Fraction | None = None
        self._waited = 0  # frames since the part's nominal beginning, or end
        self._current: _Open | None = None
        self._writing = sum(segment.frames for segment in done)
        self._counts: Counter[str] = Counter()
        self._counted: dict[str, int] = {}
        self._earlier_warnings: tuple[str, ...] = () if last is None else last.warnings
        self._new_warnings = warnings
        self._finisher = ThreadPoolExecutor(1, "finisher")
        self._finishing: Future[None] | None = None

    def _first_to_write(self, last: Segment | None) -> int | None:
        if last is not None:
            return last.first_number + last.frames
        return 0 if self._part.from_s is None else None

    @property
    def frames(self) -> int:
        """Frames of the part that are written, in this run or an earlier one."""
        return self._writing

    def take(self, batch: Batch) -> bool:
        """Write the batch's frames; False once the part has come to its end."""
        pictures = (picture for some in batch.planes for picture in zip(*some, strict=True))
        for place, (frame, planes) in enumerate(zip(batch.frames, pictures, strict=True)):
            number, begins_shot = self._number, place in batch.shot_starts
            self._number += 1
            self._finder.follow(number, frame.time_s, begins_shot)
            if self._is_behind_the_end(frame, begins_shot):
                self._end_segment(number, frame, None)
                return False
            if self._is_to_write(number, frame, begins_shot):
                self._write(number, frame, planes, begins_shot)
                self._counts.update(
                    repeated=batch.repeated[place], carried=batch.carried[place], without_bars=batch.whole[place]
                )
                self._count(batch.counts[place])
            self._counted = batch.counts[place]
            self._previous_s = frame.time_s
        return True

    def _is_to_write(self, number: int, frame: LumaFrame, begins_shot: bool) -> bool:
        if self._next is None:  # the first shot of this part is still to come
            assert self._part.from_s is not None
            if frame.time_s < self._part.from_s:
                return False
            self._waited += 1
            if not begins_shot and self._waited <= self._longest:
                return False
            self._next, self._waited = number, 0
        if number == self._next and self.segments and number and self._previous_s != self.segments[-1].last_s:
            raise RestartError
        return number >= self._next

    def _is_behind_the_end(self, frame: LumaFrame, begins_shot: bool) -> bool:
        if self._part.until_s is None or frame.time_s < self._part.until_s:
            return False
        self._waited += 1
        return begins_shot or self._waited > self._longest

    def _write(self, number: int, frame: LumaFrame, planes: tuple[object, ...], begins_shot: bool) -> None:
        if self._current is not None:
            length = self._current.writer.frames
            if length >= self._longest or (begins_shot and length >= self._shortest):
                self._end_segment(number, frame, self._finder.restart(number))
        if self._current is None:
            self._space.require(2 * max((segment.size_bytes for segment in self.segments), default=0))
            self._current = self._begin(number, frame.time_s)
        y, cb, cr = planes
        self._current.writer.write(y, cb, cr, frame.pts_ticks, frame.time_base, frame.duration_ticks)  # type: ignore[arg-type]
        self._writing += 1

    def _begin(self, number: int, time_s: Fraction) -> _Open:
        path = self._journal.folder / f"{len(self.segments):06d}{_SEGMENT_SUFFIX}"
        return _Open(self._open_segment(path), number, time_s)

    def _count(self, counts: dict[str, int]) -> None:
        self._counts.update({name: value - self._counted.get(name, 0) for name, value in counts.items()})

    def _end_segment(self, number: int, behind: LumaFrame | None, restart: Restart | None) -> None:
        """Have the current segment finished; ``behind`` is the frame that comes after it, with its ``number``."""
        current, self._current = self._current, None
        self._wait_for_finisher()
        if current is None:
            return
        read, written = number - current.first_number, current.writer.frames
        if read != written:
            current.writer.abort()
            raise FilmEncodeError(f"{current.writer.path}: {read} frames were read but {written} written")
        segment = Segment(
            name=current.writer.path.name,
            first_number=current.first_number,
            frames=current.writer.frames,
            size_bytes=0,
            sha256="",
            first_s=current.first_s,
            last_s=self._previous_s if self._previous_s is not None else current.first_s,
            next_s=None if behind is None else behind.time_s,
            restart=restart,
            counts=dict(self._counts),
            warnings=tuple(dict.fromkeys([*self._earlier_warnings, *self._new_warnings()])),
            device=self._label[0],
            precision=self._label[1],
        )
        self._counts.clear()
        self.segments.append(segment)
        self._finishing = self._finisher.submit(self._finish, current.writer, segment)
        if self._stop.is_set() and restart is not None:
            self._wait_for_finisher()
            raise StoppedError("stopped at the end of a segment; the same command goes on from there")

    def _finish(self, writer: SegmentWriter, segment: Segment) -> None:
        try:
            written = writer.finish()
        except BaseException:
            writer.abort()
            raise
        warnings = tuple(dict.fromkeys([*segment.warnings, *writer.warnings]))
        finished = replace(segment, size_bytes=written.size_bytes, sha256=written.sha256, warnings=warnings)
        self._journal.append(finished, self._space.wait)
        self.segments[-1] = finished
        self._space.found()
        frames = sum(one.frames for one in self.segments)
        if self._expected is not None and frames and segment.restart is not None:
            per_frame = sum(one.size_bytes for one in self.segments) / frames
            self._space.foretell(per_frame, self._expected - frames, self._expected)

    def _wait_for_finisher(self) -> None:
        if self._finishing is not None:
            finishing, self._finishing = self._finishing, None
            finishing.result()

    def finish(self, counts: dict[str, int]) -> None:
        """The film is over; ``counts`` is what reading has met in all."""
        if self._start is not None and self._next is not None and self._number <= self._next:
            raise RestartError
        self._count(counts)
        if self._current is None and not self.segments:  # the film ends before this part's first shot
            self._current = self._begin(self._number, self._part.from_s or Fraction(0))
        self._end_segment(self._number, None, None)
        self._wait_for_finisher()

    def close(self) -> None:
        """Leave nothing that is not journalled."""
        self._finisher.shutdown()
        if self._current is not None:
            self._current.writer.abort()
            self._current = None
