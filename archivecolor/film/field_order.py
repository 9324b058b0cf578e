"""Which field of an interlaced frame is shown first: read from decoded frames, marked on frames to encode."""

from __future__ import annotations

from fractions import Fraction

import av
import av.error
from av.filter import Graph


def filter_chain(pix_fmt: str, width_px: int, height_px: int, filters: list[tuple[str, str]]) -> Graph:
    """A chain of filters from a buffer to a sink, configured."""
    graph = Graph()
    form = av.VideoFormat(pix_fmt, width_px, height_px)
    last = graph.add_buffer(width=width_px, height=height_px, format=form, time_base=Fraction(1, 1000))
    for name, arguments in [*filters, ("buffersink", "")]:
        node = graph.add(name, arguments)
        last.link_to(node)
        last = node
    graph.configure()
    return graph


class FieldOrderReader:
    """Tells which field of an interlaced frame is shown first; PyAV says only that it is interlaced."""

    def __init__(self) -> None:
        self._graphs: dict[tuple[str, int, int], Graph] = {}

    def top_field_first(self, frame: av.VideoFrame) -> bool:
        """Whether the top field of ``frame`` comes first."""
        key = frame.format.name, frame.width, frame.height
        if key not in self._graphs:
            self._graphs[key] = filter_chain(*key, [("select", r"expr=eq(interlace_type\,TOPFIRST)")])
        graph = self._graphs[key]
        graph.push(frame)
        try:
            graph.pull()
        except av.error.BlockingIOError:
            return False
        return True


class FieldMarker:
    """Marks frames for an encoder as interlaced, with this field order; the samples stay the same memory."""

    def __init__(self, pix_fmt: str, width_px: int, height_px: int, *, top_field_first: bool) -> None:
        mode = "tff" if top_field_first else "bff"
        self._graph = filter_chain(pix_fmt, width_px, height_px, [("setparams", f"field_mode={mode}")])

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The same frame, marked."""
        pts, time_base = frame.pts, frame.time_base
        self._graph.push(frame)
        marked = self._graph.pull()
        assert isinstance(marked, av.VideoFrame)
        marked.pts, marked.time_base = pts, time_base
        return marked
