"""The colours of a film as it would be shown, to measure them by; colourising reads luma alone (`FilmReader`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from archivecolor.errors import FilmDecodeError
from archivecolor.film.info import FilmInfo
from archivecolor.film.opening import open_film
from archivecolor.film.probe import probe
from archivecolor.film.reader import exact_time

_COLORSPACES: Final = {
    "bt709": Colorspace.ITU709,
    "bt470bg": Colorspace.ITU601,
    "smpte170m": Colorspace.ITU601,
    "fcc": Colorspace.FCC,
    "smpte240m": Colorspace.SMPTE240M,
    "bt2020nc": Colorspace.BT2020,
}


def read_rgb(
    film: Path | FilmInfo, longest_px: int, *, start_s: float | None = None, end_s: float | None = None
) -> Iterator[npt.NDArray[np.uint16]]:
    """Frames as (H, W, 3) R'G'B' 0..65535, averaged down to ``longest_px`` at most, in presentation order.

    ``start_s`` and ``end_s`` cut as `FilmReader` does. What cannot be decoded is left out, as there.

    Raises:
        FilmOpenError: the film cannot be opened.
        FilmDecodeError: none of its frames can be decoded.
    """
    info = film if isinstance(film, FilmInfo) else probe(film)
    width_px, height_px = _fit_within(info.picture.width_px, info.picture.height_px, longest_px)
    first_s = info.first_pts_ticks * info.time_base
    begin = None if start_s is None else first_s + exact_time(start_s)
    end = None if end_s is None else first_s + exact_time(end_s)
    given = 0
    for frame in _decoded(info):
        if frame.pts is not None and frame.time_base is not None:
            time_s = frame.pts * frame.time_base
            if begin is not None and time_s < begin:
                continue
            if end is not None and time_s >= end:
                break
        given += 1
        shown: npt.NDArray[Any] = frame.reformat(
            width_px,
            height_px,
            "gbrp16le",
            src_colorspace=_COLORSPACES[info.picture.matrix],
            src_color_range=ColorRange.JPEG if info.picture.full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND,
        ).to_ndarray()
        yield shown
    if not given:
        raise FilmDecodeError(f"{info.path}: no frame of it can be decoded in the part asked for")


def _fit_within(width_px: int, height_px: int, longest_px: int) -> tuple[int, int]:
    """Width and height with the longer one at most ``longest_px``; never enlarged, at least 1."""
    scale = min(1.0, longest_px / max(width_px, height_px))
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def _decoded(info: FilmInfo) -> Iterator[av.VideoFrame]:
    with open_film(info.path) as container:
        stream: Any = container.streams[info.video_index]
        stream.thread_type = "AUTO"
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except av.error.FFmpegError:
                continue
            yield from frames
