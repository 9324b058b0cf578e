"""Planes to packets: one film's picture through its encoder."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from archivecolor.film.field_order import FieldMarker
from archivecolor.film.info import FilmInfo
from archivecolor.film.pixels import plane_view
from archivecolor.film.profiles import OutputPlan, configure

_GLOBAL_HEADER: Final = 0x0040  # AVFMT_GLOBALHEADER: the container keeps what a decoder needs, the packets do not


def open_encoder(info: FilmInfo, plan: OutputPlan) -> VideoCodecContext:
    """An encoder of its own for a plan, whose packets fit into the plan's container; raises FFmpegError, ValueError."""
    context = av.CodecContext.create(plan.encoder, "w")
    assert isinstance(context, VideoCodecContext)
    configure(context, info, plan)
    if av.ContainerFormat(plan.format_name, "w").flags & _GLOBAL_HEADER:
        context.flags |= Flags.global_header
    context.open()
    return context


class PictureEncoder:
    """Encode frames with ``context``, set up for ``plan``; ``offset_s`` is subtracted from every time.

    Packets carry the durations of the frames that they show. Raises FFmpegError.
    """

    def __init__(self, context: VideoCodecContext, info: FilmInfo, plan: OutputPlan, offset_s: Fraction) -> None:
        self.context = context
        self._info, self._plan, self._offset_s = info, plan, offset_s
        self._durations: dict[int, int] = {}
        self._last_pts = 0
        self._marker: FieldMarker | None = None
        if plan.interlaced:
            picture = info.picture
            first = picture.top_field_first is not False
            self._marker = FieldMarker(plan.pix_fmt, picture.width_px, picture.height_px, top_field_first=first)

    def encode(
        self,
        y: npt.NDArray[np.generic],
        cb: npt.NDArray[np.generic],
        cr: npt.NDArray[np.generic],
        pts_ticks: int,
        time_base: Fraction,
        duration_ticks: int | None = None,
    ) -> list[Packet[Any]]:
        """The packets that one more frame brings about; see `FilmWriter.write`."""
        frame = av.VideoFrame(self._info.picture.width_px, self._info.picture.height_px, self._plan.pix_fmt)
        for index, plane in enumerate((y, cb, cr)):
            target = plane_view(frame, index)
            if plane.shape != target.shape or plane.dtype.itemsize != target.dtype.itemsize:
                wanted = f"{self._plan.pix_fmt} wants {target.shape} {target.dtype}"
                raise ValueError(f"plane {index} is {plane.shape} {plane.dtype}; {wanted}")
            target[:] = plane
        base = self._info.time_base
        frame.color_range = 2 if self._plan.full_range else 1
        frame.colorspace = self._plan.tag_matrix
        frame.color_primaries = self._plan.tag_primaries
        frame.color_trc = self._plan.tag_transfer
        frame.pts = round((pts_ticks * time_base - self._offset_s) / base)
        frame.time_base = base
        rate = self._info.average_rate or Fraction(25)
        if self._last_pts in self._durations:  # MP4 gives durations in the order of decoding
            self._durations[self._last_pts] = min(self._durations[self._last_pts], max(1, frame.pts - self._last_pts))
        self._last_pts = frame.pts
        self._durations[frame.pts] = max(1, round((duration_ticks * time_base if duration_ticks else 1 / rate) / base))
        return self._timed(self.context.encode(frame if self._marker is None else self._marker(frame)))

    def flush(self) -> list[Packet[Any]]:
        """What the encoder still holds."""
        return self._timed(self.context.encode(None))

    def _timed(self, packets: list[Packet[Any]]) -> list[Packet[Any]]:
        for packet in packets:
            if packet.pts is not None:
                packet.duration = self._durations.pop(packet.pts, packet.duration)
        return packets
