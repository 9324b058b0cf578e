"""The presentation time of each decoded frame, from what the file says of it."""

from __future__ import annotations

import heapq
from fractions import Fraction
from typing import Final

import av

from archivecolor.film.frames import ReadReport
from archivecolor.film.info import FilmInfo

_CLOCK_JUMP_S: Final = 1  # a step back of more than this is a new clock, less is a slip


class FrameClock:
    """Places frames in time, each later than the one before; what had to be mended goes into ``report``.

    ``last_pts`` is the last frame's time, ``last_end`` when it is over, in ticks of the film's time base. A clock that
    starts anew goes on where the old one ended: ``shift_ticks`` is by how much it was moved.
    """

    def __init__(self, info: FilmInfo, report: ReadReport) -> None:
        self._info, self._report = info, report
        self._coded_times: list[int] = []  # a heap of packet times, where those are in coding order
        self.last_pts: int | None = None
        self.last_end: int | None = None
        self.shift_ticks = 0

    @property
    def nominal_ticks(self) -> int:
        """How long a frame is shown by the film's rate."""
        rate = self._info.average_rate or Fraction(25)
        return max(1, round(1 / rate / self._info.time_base))

    def expect(self, pts: int) -> None:
        """Note the time of a packet that goes into the decoder."""
        if self._info.times_in_coding_order:
            heapq.heappush(self._coded_times, pts)

    def place(self, frame: av.VideoFrame) -> int:
        """The time of the next frame, in ticks."""
        pts = self._place(frame)
        self.last_pts = pts
        self.last_end = pts + (frame.duration or self.nominal_ticks)
        return pts

    def _place(self, frame: av.VideoFrame) -> int:
        name = self._info.path.name
        pts = frame.pts if frame.pts is not None else frame.dts
        if self._info.times_in_coding_order and self._coded_times:
            pts = heapq.heappop(self._coded_times)  # the earliest of the packets that went in is shown next
            self._report.warn(f"{name}: its times are in coding order; frames are placed in the order they are shown")
        if pts is None:
            self._report.warn(f"{name}: some frames carry no time; placed by the frame rate")
            return self.last_end if self.last_end is not None else self._info.first_pts_ticks
        pts += self.shift_ticks
        if self.last_pts is None or pts > self.last_pts:
            return pts
        self._report.moved_timestamps += 1
        if (self.last_pts - pts) * self._info.time_base > _CLOCK_JUMP_S and self.last_end is not None:
            self.shift_ticks += self.last_end - pts
            self._report.warn(f"{name}: the film's clock jumps back; the picture goes on without a gap")
            return self.last_end
        self._report.warn(f"{name}: some frames carry the time of the frame before; moved behind it")
        return self.last_pts + max(1, self.nominal_ticks // 4)  # Matroska's ticks are coarse
