"""A few frames spread over a film: is it black-and-white, and luma for finding mattes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from archivecolor.errors import FilmDecodeError, FilmOpenError
from archivecolor.film.info import FilmInfo
from archivecolor.film.opening import open_film
from archivecolor.film.pixels import Plane, chroma_deviation, luma_plane
from archivecolor.film.sequences import SequenceFrame, read_frame

# Mean distance of chroma from neutral, 8-bit code values, under which a picture passes for black-and-white: coding
# noise of grey pictures stays below 1, a faint sepia tint starts at about 3.
NEUTRAL_CHROMA: Final = 2.0
_MOST_PACKETS: Final = 200


@dataclass(frozen=True)
class FilmSamples:
    """Frames spread over a film: ``luma`` as the reader gives it, in ascending ``times_s`` on the source's clock.

    ``chroma_deviation`` is the mean distance of the source's chroma from neutral over these frames, 8-bit code values.
    """

    luma: tuple[Plane, ...]
    times_s: tuple[Fraction, ...]
    chroma_deviation: float

    @property
    def is_black_and_white(self) -> bool:
        """Whether the source's own chroma is neutral."""
        return self.chroma_deviation <= NEUTRAL_CHROMA


def sample_frames(info: FilmInfo, count: int = 8) -> FilmSamples:
    """Decode ``count`` frames spread evenly over the film by seeking to key frames; fewer when it has fewer.

    Where the file cannot seek or has few key frames, frames from its beginning. Raises
    `FilmDecodeError` when no frame can be decoded.
    """
    if info.files:
        return _sample_files(info, count)
    frames: dict[int, av.VideoFrame] = {}
    with open_film(info.path) as container:
        video = container.streams[info.video_index]
        assert isinstance(video, VideoStream)
        base = video.time_base or info.time_base
        for number in range(count):
            if number and info.duration_s is None:
                break
            at_s = (info.duration_s or 0.0) * number / count
            target = int((info.first_pts_ticks * info.time_base + Fraction(at_s)) / base)
            frame = _frame_from(container, video, target if number else None)
            if frame is not None and frame.pts is not None and _same_size(frame, info):
                frames.setdefault(frame.pts, frame)
    if len(frames) < max(2, count // 2):
        _add_first_frames(info, frames, count)
    if not frames:
        raise FilmDecodeError(f"{info.path}: no frame of it can be decoded")
    ordered = sorted(frames.items())
    deviation = sum(chroma_deviation(frame) for _, frame in ordered) / len(ordered)
    return FilmSamples(
        luma=tuple(luma_plane(frame, info.picture.matrix) for _, frame in ordered),
        times_s=tuple(pts * base for pts, _ in ordered),
        chroma_deviation=deviation,
    )


def _sample_files(info: FilmInfo, count: int) -> FilmSamples:
    """The same of an image sequence."""
    numbers = sorted({round(n * (len(info.files) - 1) / max(1, count - 1)) for n in range(count)})
    shape = info.picture.height_px, info.picture.width_px
    found: list[tuple[int, SequenceFrame]] = []
    for number in numbers:
        with contextlib.suppress(FilmOpenError):  # the reader names it
            found.append((number, read_frame(info.files[number], info.picture.matrix)))
    found = [(number, frame) for number, frame in found if frame.luma.shape == shape]
    if not found:
        raise FilmDecodeError(f"{info.path}: no frame of it can be decoded")
    return FilmSamples(
        luma=tuple(frame.luma for _, frame in found),
        times_s=tuple(number * info.time_base for number, _ in found),
        chroma_deviation=sum(frame.chroma_deviation for _, frame in found) / len(found),
    )


def picture_length_s(info: FilmInfo) -> float:
    """Seconds from the first to the last frame of the picture, by its packets as they can be read; nothing is decoded.

    Unlike the header's duration this tells a file that was cut short from a whole one.
    """
    first_s = last_s = info.first_pts_ticks * info.time_base
    with open_film(info.path) as container, contextlib.suppress(av.error.FFmpegError):  # what can be read ends there
        for packet in container.demux(container.streams[info.video_index]):
            if packet.pts is not None and packet.size:
                last_s = max(last_s, packet.pts * packet.time_base)
    return float(last_s - first_s)


def _same_size(frame: av.VideoFrame, info: FilmInfo) -> bool:
    return (frame.width, frame.height) == (info.picture.width_px, info.picture.height_px)


def _frame_from(container: InputContainer, video: VideoStream, target: int | None) -> av.VideoFrame | None:
    """The first frame that decodes from the key frame before ``target``."""
    try:
        if target is not None:
            container.seek(target, stream=video, backward=True)
    except av.error.FFmpegError:
        return None
    packets = container.demux(video)
    for _ in range(_MOST_PACKETS):
        try:
            packet = next(packets, None)
            if packet is None:
                return None
            decoded = packet.decode()
        except av.error.FFmpegError:
            continue
        if decoded:
            return decoded[0]
    return None


def _add_first_frames(info: FilmInfo, frames: dict[int, av.VideoFrame], count: int) -> None:
    """Fill up with frames from the film's beginning, spread over as much of it as is decoded anyway."""
    step = max(1, min(info.frames_estimate or count, _MOST_PACKETS) // count)
    number = 0
    with open_film(info.path) as container:
        video = container.streams[info.video_index]
        assert isinstance(video, VideoStream)
        packets = container.demux(video)
        for _ in range(_MOST_PACKETS):
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                decoded = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in decoded:
                if number % step == 0 and _same_size(frame, info):
                    frames.setdefault(number if frame.pts is None else frame.pts, frame)
                number += 1
            if len(frames) >= count:
                return
