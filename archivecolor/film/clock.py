"""The presentation time of each decoded frame and packet, from what the file says of it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
from av.packet import Packet
from av.stream import Stream

from archivecolor.film.frames import ReadReport, SidePacket
from archivecolor.film.info import FilmInfo
from archivecolor.film.opening import TS_DISCONT

_CLOCK_JUMP_S: Final = 1  # a step back of more than this is a new clock, less is a slip
_LEAP_S: Final = 4 * 3600  # forward, of a clock that may start anywhere: no gap is as long
_LONGEST_TAIL_S: Final = 10  # of sound behind the last picture, before it is no tail
_MOST_HELD: Final = 2000


class FrameClock:
    """Places frames in time, each later than the one before; what had to be mended goes into ``report``.

    ``last_pts`` is the last frame's time, ``last_end`` when it is over, in ticks of the film's time base. A clock that
    starts anew goes on where the old one ended: ``shifts`` is by how many ticks it was moved each time, from 0 on.
    ``sound_end_s`` is where the sound that came before that ended.
    """

    def __init__(self, info: FilmInfo, report: ReadReport) -> None:
        self._info, self._report = info, report
        self._coded_times: list[int] = []  # a heap of packet times, where those are in coding order
        self.last_pts: int | None = None
        self.last_end: int | None = None
        self.sound_end_s = Fraction(0)
        self.shifts = [0]
        self._may_leap = bool(av.ContainerFormat(info.container.partition(",")[0], "r").flags & TS_DISCONT)

    @property
    def shift_ticks(self) -> int:
        """What is added to the times of the file now."""
        return self.shifts[-1]

    @property
    def nominal_ticks(self) -> int:
        """How long a frame is shown by the film's rate."""
        rate = self._info.average_rate or Fraction(25)
        return max(1, round(1 / rate / self._info.time_base))

    def is_new(self, step_s: Fraction) -> bool:
        """Whether a step from one time to the next is one to another clock."""
        return step_s < -_CLOCK_JUMP_S or (self._may_leap and step_s > _LEAP_S)

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
        if self.last_pts is None:
            return pts
        is_new = self.is_new((pts - self.last_pts) * self._info.time_base)
        if pts > self.last_pts and not is_new:
            return pts
        self._report.moved_timestamps += 1
        if is_new and self.last_end is not None:
            begins = self.last_end
            if 0 < self.sound_end_s - begins * self._info.time_base < _LONGEST_TAIL_S:
                begins = -int(-self.sound_end_s // self._info.time_base)
            self.shifts.append(self.shift_ticks + begins - pts)
            self._report.warn(f"{name}: the film's clock starts anew; it goes on where the old one ended")
            return begins
        self._report.warn(f"{name}: some frames carry the time of the frame before; moved behind it")
        return self.last_pts + max(1, self.nominal_ticks // 4)  # Matroska's ticks are coarse


@dataclass
class _Track:
    """How far one of the other streams has come."""

    jumps: int = 0
    last_s: Fraction | None = None  # on the file's clock, as is the next
    step_s: Fraction = Fraction(0)  # between the last two packets
    end_s: Fraction = Fraction(0)  # as placed


class SideClock:
    """Moves the packets of the other streams as the picture was moved, where the film's clock starts anew.

    Packets that come before the picture has got there wait for it. Where the picture's clock never does, they go on
    where their own stream had ended.
    """

    def __init__(self, clock: FrameClock, time_base: Fraction) -> None:
        self._clock, self._time_base = clock, time_base
        self._tracks: dict[int, _Track] = {}
        self._held: list[SidePacket] = []

    def place(self, packet: Packet[Stream]) -> Iterator[SidePacket]:
        """``packet``, or nothing yet."""
        track = self._tracks.setdefault(packet.stream_index, _Track())
        stamp = packet.dts if packet.dts is not None else packet.pts
        side = SidePacket(packet.stream_index, packet)
        if stamp is None:
            yield side
            return
        now_s = stamp * packet.time_base
        if packet.stream.type != "audio":  # too sparse to tell
            track.jumps = max(track.jumps, len(self._clock.shifts) - 1)
        elif track.last_s is not None and self._clock.is_new(now_s - track.last_s):
            track.jumps += 1
        elif track.last_s is not None:
            track.step_s = now_s - track.last_s
        track.last_s = now_s
        if track.jumps >= len(self._clock.shifts) or any(s.stream_index == side.stream_index for s in self._held):
            self._held.append(side)
            if len(self._held) > _MOST_HELD:
                yield from self.finish()
        else:
            yield self._moved(side, self._clock.shifts[track.jumps] * self._time_base)

    def ready(self) -> Iterator[SidePacket]:
        """Packets that waited for the picture, which has come."""
        if self._held and all(self._tracks[s.stream_index].jumps < len(self._clock.shifts) for s in self._held):
            held, self._held = self._held, []
            for side in held:
                yield self._moved(side, self._clock.shifts[self._tracks[side.stream_index].jumps] * self._time_base)

    def finish(self) -> Iterator[SidePacket]:
        """Packets for which no picture has come."""
        held, self._held = self._held, []
        shift_s: dict[int, Fraction] = {}
        for side in held:
            track, packet = self._tracks[side.stream_index], side.packet
            stamp = packet.dts if packet.dts is not None else packet.pts or 0
            moved_s = shift_s.setdefault(side.stream_index, track.end_s - stamp * packet.time_base)
            track.jumps = len(self._clock.shifts) - 1
            yield self._moved(side, moved_s)

    def _moved(self, side: SidePacket, shift_s: Fraction) -> SidePacket:
        packet = side.packet
        ticks = round(shift_s / packet.time_base)
        if ticks:
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        track = self._tracks[side.stream_index]
        stamp = packet.dts if packet.dts is not None else packet.pts or 0
        length_s = packet.duration * packet.time_base if packet.duration else track.step_s
        track.end_s = stamp * packet.time_base + length_s
        if packet.stream.type == "audio" and track.jumps == len(self._clock.shifts) - 1:
            self._clock.sound_end_s = max(self._clock.sound_end_s, track.end_s)
        return side
