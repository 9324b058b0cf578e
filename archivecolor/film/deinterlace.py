"""Interlaced pictures turned into progressive frames, one or two of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import av
import av.error
import numpy as np
from av.filter import Graph

from archivecolor.film.field_order import filter_chain
from archivecolor.film.frames import LumaFrame
from archivecolor.film.info import FilmInfo
from archivecolor.film.pixels import Plane, plane_view

Deinterlace = Literal["auto", "off", "fields"]
"""``auto``: interlaced frames become progressive, one for one; ``fields``: two frames of each; ``off``: as they are."""

_FEWEST_LINES, _FEWEST_COLUMNS = 4, 3


def after_deinterlacing(info: FilmInfo, mode: Deinterlace) -> FilmInfo:
    """``info`` as it is once its fields have become frames: progressive, with ``fields`` at twice the rate."""
    if mode == "off":
        return info
    picture = replace(info.picture, interlaced=False, field_order="progressive")
    if mode == "auto":
        return replace(info, picture=picture)
    doubled = 2 if info.picture.interlaced else 1
    return replace(
        info,
        picture=picture,
        time_base=info.time_base / 2,
        first_pts_ticks=info.first_pts_ticks * 2,
        average_rate=info.average_rate and info.average_rate * doubled,
        frames_estimate=info.frames_estimate and info.frames_estimate * doubled,
        is_doubled=info.picture.interlaced,
    )


class Deinterlacer:
    """Luma frames in, luma frames out: interlaced ones through bwdif, progressive ones as they are.

    One frame of delay once the first interlaced frame has come, none before. ``mode`` ``"auto"`` gives a frame for
    each frame, at its own time; ``"fields"`` two for each interlaced one, the second half-way to the next frame.
    Times are in ticks of half the source's time base with ``"fields"``.
    """

    def __init__(self, mode: Deinterlace, bit_depth: int) -> None:
        self._doubles = mode == "fields"
        self._largest = (1 << bit_depth) - 1
        self._graph: Graph | None = None
        self._top_first: bool | None = None
        self._waiting: list[LumaFrame] = []
        self._halves: list[Plane] = []
        self.deinterlaced = 0

    def push(self, frame: LumaFrame) -> Iterator[LumaFrame]:
        """Put a frame in; gives those that are ready."""
        top_first = frame.top_field_first
        too_small = frame.luma.shape[0] < _FEWEST_LINES or frame.luma.shape[1] < _FEWEST_COLUMNS
        if self._graph is None and (top_first is None or too_small):
            yield self._timed(frame)
            return
        if top_first is not None and top_first != self._top_first:
            yield from self.flush()
            parity = "tff" if top_first else "bff"
            height, width = frame.luma.shape
            pix_fmt = "gray" if frame.luma.dtype == np.uint8 else "gray16le"
            mode = "send_field" if self._doubles else "send_frame"
            self._graph = filter_chain(pix_fmt, width, height, [("bwdif", f"mode={mode}:parity={parity}:deint=all")])
            self._top_first = top_first
        assert self._graph is not None
        self._waiting.append(frame)
        self._graph.push(self._picture(frame))
        yield from self._ready()

    def flush(self) -> Iterator[LumaFrame]:
        """The frames that are still on their way; afterwards it is as new."""
        if self._graph is None:
            return
        self._graph.push(None)
        yield from self._ready()
        for frame in self._waiting:  # none, unless the filter gave fewer frames than it got
            yield self._timed(frame)
        self._waiting, self._halves = [], []
        self._graph, self._top_first = None, None

    def _picture(self, frame: LumaFrame) -> av.VideoFrame:
        height, width = frame.luma.shape
        picture = av.VideoFrame(width, height, "gray" if frame.luma.dtype == np.uint8 else "gray16le")
        plane_view(picture, 0)[:] = frame.luma
        picture.pts, picture.time_base = frame.pts_ticks, frame.time_base
        return picture

    def _ready(self) -> Iterator[LumaFrame]:
        assert self._graph is not None
        while True:
            try:
                picture = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert isinstance(picture, av.VideoFrame)
            luma = plane_view(picture, 0)
            self._halves.append(np.minimum(luma, self._largest) if self._largest in range(256, 65535) else luma)
            if len(self._halves) == 1 + self._doubles:
                planes, self._halves = self._halves, []
                frame = self._waiting.pop(0)
                yield from self._finished(frame, planes, self._waiting[0] if self._waiting else None)

    def _finished(self, frame: LumaFrame, planes: list[Plane], following: LumaFrame | None) -> Iterator[LumaFrame]:
        if frame.top_field_first is None:
            yield self._timed(frame)
            return
        self.deinterlaced += 1
        if not self._doubles:
            yield replace(frame, luma=planes[0], top_field_first=None)
            return
        step = frame.duration_ticks
        if following is not None and following.pts_ticks > frame.pts_ticks:
            gap = following.pts_ticks - frame.pts_ticks
            step = gap if step is None else min(gap, step)
        half = max(1, step or 1)  # in the halved time base half a frame is as many ticks as a whole one was before
        for number, luma in enumerate(planes):
            yield replace(
                frame,
                luma=luma,
                pts_ticks=frame.pts_ticks * 2 + number * half,
                duration_ticks=half,
                time_base=frame.time_base / 2,
                top_field_first=None,
            )

    def _timed(self, frame: LumaFrame) -> LumaFrame:
        """A progressive frame in the time base that is given out."""
        if not self._doubles:
            return frame
        doubled = None if frame.duration_ticks is None else frame.duration_ticks * 2
        return replace(frame, pts_ticks=frame.pts_ticks * 2, duration_ticks=doubled, time_base=frame.time_base / 2)
