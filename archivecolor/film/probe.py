"""Looking into a film: what its header and its first decoded frames say of it."""

from __future__ import annotations

import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from archivecolor.errors import FilmOpenError
from archivecolor.film.field_order import FieldOrderReader
from archivecolor.film.hevc import source_scan
from archivecolor.film.info import MATRIX_NAMES, UNTAGGED, Chapter, FilmInfo, Picture, StreamInfo
from archivecolor.film.opening import (
    STILL_DISPOSITIONS,
    TS_DISCONT,
    codec_name,
    in_words,
    main_video,
    open_film,
    readable,
)
from archivecolor.film.pixels import UnusablePixelFormatError, pixel_format
from archivecolor.film.track_marks import roles_of
from archivecolor.matrices import MATRICES

# By the field that is shown first, as FFmpeg's raw decoders take the container's word.
_FIELD_ORDERS: Final = {1: "progressive", 2: "tt", 3: "bb", 4: "tt", 5: "bb"}
_MARK_NO_FRAMES: Final = {"cfhd", "ffvhuff", "huffyuv", "jpeg2000", "qtrle", "utvideo", "v410", "vc2", "dirac"}
_IDENTITY_MATRIX: Final = (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
_DOLBY_VISION_TAGS: Final = {"dvh1", "dvhe", "dva1", "dvav", "dav1"}  # of pictures that need it to be shown
_MOST_PACKETS: Final = 400
_TS_BYTES, _TS_SYNC = 188 * 192 * 20, 0x47
_FRAMES_LOOKED_AT: Final = 12
_HIGHEST_RATE: Final = 400


def probe(path: Path) -> FilmInfo:
    """Look into a film: header, first decodable frame, a few timestamps; quick whatever its length.

    Raises `FilmOpenError` for anything that is not a film with a picture that can be decoded.
    """
    path = Path(path)
    with open_film(path) as container:
        stream = main_video(container, path)
        frames = _first_frames(container, stream, path)
        _refuse_unreadable(frames, stream, path)
        picture = _picture(frames, stream, path)
        time_base = stream.time_base or Fraction(1, 90000)
        duration_s = _duration_s(container, stream)
        rate = stream.average_rate or stream.guessed_rate
        variable = _is_variable(stream)
        if rate is None or rate > _HIGHEST_RATE:  # Matroska without a default duration gives 1000 a second
            rate, variable = _rate_of_packets(container, stream)
        first = _first_pts(frames, rate, time_base)
        number = stream.frames or (round(duration_s * rate) if duration_s and rate else None)
        return FilmInfo(
            path=path,
            container=container.format.name,
            container_name=container.format.long_name,
            duration_s=duration_s,
            size_bytes=path.stat().st_size,
            first_pts_ticks=first,
            time_base=time_base,
            origin_s=_origin_s(container, first, time_base),
            average_rate=rate,
            frames_estimate=number,
            is_variable_rate=variable,
            picture=picture,
            video_index=stream.index,
            streams=tuple(_describe(s) for s in container.streams),
            chapters=tuple(
                Chapter(
                    float(c["start"] * (c["time_base"] or 0)),
                    float(c["end"] * (c["time_base"] or 0)),
                    readable(c["metadata"].get("title", "")),
                )
                for c in container.chapters()
            ),
            metadata={readable(k): readable(v) for k, v in container.metadata.items()},
            times_in_coding_order=_goes_back([frame.pts for frame in frames]),
        )


def _first_frames(container: InputContainer, stream: VideoStream, path: Path) -> list[av.VideoFrame]:
    """The first dozen frames that can be decoded, at least one."""
    frames: list[av.VideoFrame] = []
    last: Exception | None = None
    packets = container.demux(stream)
    for _ in range(_MOST_PACKETS):
        try:
            packet = next(packets, None)
            if packet is None:
                break
            if packet.has_sidedata("encryption_info") or packet.has_sidedata("encryption_init_info"):
                raise FilmOpenError(f"{path}: the picture is encrypted; decrypt it first")
            frames.extend(packet.decode())
        except av.error.FFmpegError as error:
            last = error
        if len(frames) >= _FRAMES_LOOKED_AT:
            break
    if frames:
        return frames
    if container.format.name == "mpegts" and _is_scrambled(path):
        raise FilmOpenError(f"{path}: the transport stream is encrypted; descramble it first")
    words = f" ({in_words(last)})" if last else ""
    raise FilmOpenError(f"{path}: no frame of its {codec_name(stream)} picture can be decoded{words}")


def _is_scrambled(path: Path) -> bool:
    """Whether most packets of a transport stream say that they are (transport_scrambling_control, ISO/IEC 13818-1)."""
    with path.open("rb") as file:
        data = file.read(_TS_BYTES)
    size = 192 if data[4:5] == b"\x47" and data[196:197] == b"\x47" else 188  # Blu-ray puts a time before each
    marked = [data[at + 3] >> 6 != 0 for at in range(size - 188, len(data) - 3, size) if data[at] == _TS_SYNC]
    return sum(marked) * 2 > len(marked)


def _refuse_unreadable(frames: list[av.VideoFrame], stream: VideoStream, path: Path) -> None:
    """Pictures that decode but are not what they seem."""
    kinds = _side_data(frames[0])
    transfer = int(frames[0].color_trc)
    is_dolby = stream.codec_context.codec_tag in _DOLBY_VISION_TAGS or "DOVI_METADATA" in kinds
    if is_dolby and transfer in (0, UNTAGGED):
        raise FilmOpenError(f"{path}: HDR picture (Dolby Vision); convert it to SDR first")
    if codec_name(stream) == "hevc" and frames[0].interlaced_frame:
        raise FilmOpenError(f"{path}: HEVC coded as single fields; weave them into frames first")


def _first_pts(frames: list[av.VideoFrame], rate: Fraction | None, time_base: Fraction) -> int:
    """When the first frame is shown, in ticks; Matroska's demuxer takes the time from frames before zero."""
    for number, frame in enumerate(frames):
        if frame.pts is not None and (number == 0 or rate is not None):
            return frame.pts - (round(number / rate / time_base) if rate else 0)
    return frames[0].dts or 0


def _goes_back(times: list[int | None]) -> bool:
    """Whether the times of a film's first frames, in the order they are shown, go back."""
    known = [pts for pts in times if pts is not None]
    return len(known) == len(times) and any(b < a for a, b in pairwise(known))


def _interlacing(frames: list[av.VideoFrame], stream: VideoStream) -> tuple[bool, str, bool]:
    """Whether the picture is interlaced, its field order, and whether only a header says so, not its frames."""
    order = _FIELD_ORDERS.get(stream.codec_context.field_order, "unknown")
    for frame in frames:
        if frame.interlaced_frame:
            return True, "tt" if FieldOrderReader().top_field_first(frame) else "bb", False
    codec, is_ordered = codec_name(stream), order in ("tt", "bb")
    by_header = codec in _MARK_NO_FRAMES and is_ordered
    if codec == "hevc" and (scan := source_scan(stream.codec_context.extradata or b"")) != "progressive":
        by_header = is_ordered or scan == "interlaced"
        order = order if is_ordered else "tt"  # as the picture of high definition is
    return by_header, order if by_header else "progressive", by_header


def _picture(frames: list[av.VideoFrame], stream: VideoStream, path: Path) -> Picture:
    frame = frames[0]
    name = frame.format.name
    try:
        known = pixel_format(name)
    except UnusablePixelFormatError as error:
        raise FilmOpenError(f"{path}: {error} cannot be colourised; convert it to 8..16 bit first") from error
    tagged = int(frame.colorspace)
    matrix = MATRIX_NAMES.get(tagged, "")
    if matrix not in MATRICES:
        standard = frame.width <= 1024 and frame.height <= 576
        matrix = ("bt470bg" if frame.height == 576 else "smpte170m") if standard else "bt709"
    tagged_range = int(frame.color_range)
    full = known.full_range_untagged
    if not (name.startswith("yuvj") or known.is_rgb) and tagged_range in (1, 2):
        full = tagged_range == 2
    rotation, display = _display_matrix(frame)
    interlaced, order, by_container = _interlacing(frames, stream)
    return Picture(
        width_px=frame.width,
        height_px=frame.height,
        pix_fmt=name,
        bit_depth=known.bit_depth,
        full_range=full,
        matrix=matrix,
        tagged_matrix=tagged,
        tagged_primaries=int(frame.color_primaries),
        tagged_transfer=int(frame.color_trc),
        tagged_range=tagged_range,
        sample_aspect_ratio=stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio,
        display_matrix=display,
        rotation=rotation,
        interlaced=interlaced,
        field_order=order,
        marked_by_container=by_container,
    )


def _display_matrix(frame: av.VideoFrame) -> tuple[int, tuple[int, ...] | None]:
    matrix = _side_data(frame).get("DISPLAYMATRIX")
    if matrix is None:
        return frame.rotation, None
    values = struct.unpack("=9i", matrix[:36])
    return (frame.rotation, values) if values != _IDENTITY_MATRIX else (0, None)


def _side_data(frame: av.VideoFrame) -> dict[str, bytes]:
    """What comes with a frame, by PyAV's names; empty where one is of a kind that it has no name for."""
    try:
        entries: Any = list(frame.side_data)  # its iterator gives the entries, though it is typed as a mapping
        return {data.type.name: bytes(data) for data in entries}
    except ValueError:
        return {}


def _duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _origin_s(container: InputContainer, first: int, time_base: Fraction) -> Fraction:
    """What the film's zero is on its clock: a whole number of ticks, or the picture could not be moved by it."""
    if container.format.flags & TS_DISCONT:
        starts = [s.start_time * s.time_base for s in container.streams if s.start_time is not None and s.time_base]
        earliest_s = min([first * time_base, *starts])
        # Before zero is, in Ogg, sound that has to be decoded and is not heard; elsewhere the clock has wrapped.
        if earliest_s > 0 or container.format.name != "ogg":
            return earliest_s // time_base * time_base
    return min(Fraction(0), first * time_base)


def _is_variable(stream: VideoStream) -> bool:
    """Variable frame rate, by the container's index where it lists every frame, else by its two rates."""
    entries = stream.index_entries
    if len(entries) > 2 and len(entries) >= (stream.frames or 1):
        times = [entries[i].timestamp for i in range(min(len(entries), 3000))]
        steps = np.diff(np.array(times, np.int64))
        rate, base = stream.average_rate, stream.time_base
        slack = max(1.0, 0.1 * float(1 / rate / base)) if rate and base else 1.0
        return bool(steps.max() - steps.min() > slack)
    if stream.average_rate and stream.base_rate and stream.base_rate < 900:
        return abs(float(stream.base_rate / stream.average_rate) - 1) > 0.02
    return False


def _rate_of_packets(container: InputContainer, stream: VideoStream) -> tuple[Fraction | None, bool]:
    """Frame rate and whether it varies, from the timestamps of the next packets."""
    times: set[int] = set()
    try:
        for packet in container.demux(stream):
            if packet.pts is not None:
                times.add(packet.pts)
            if len(times) >= 60:
                break
    except av.error.FFmpegError:
        return None, False
    if len(times) < 4 or stream.time_base is None:
        return None, False
    # The newest ones may still have gaps where reordered frames are to come.
    ticks = np.array(sorted(times)[: -max(1, len(times) // 8)], np.int64)
    steps = np.diff(ticks)
    mean_s = Fraction(int(ticks[-1] - ticks[0]), len(steps)) * stream.time_base
    rate = (1 / mean_s).limit_denominator(1001)
    return rate, bool(steps.max() - steps.min() > max(2.0, 0.1 * float(np.median(steps))))


def _describe(stream: Stream) -> StreamInfo:
    kind = stream.type if stream.type in ("video", "audio", "subtitle", "attachment") else "data"
    context = stream.codec_context
    words = ""
    if context is not None and context.type == "audio":
        words = f"{getattr(context, 'sample_rate', 0)} Hz, {getattr(context.layout, 'name', '?')}"  # type: ignore[attr-defined]
    elif context is not None and isinstance(stream, VideoStream):
        words = f"{stream.width}x{stream.height}, {stream.pix_fmt or 'unknown format'}"
    elif kind == "attachment":
        words = readable(stream.metadata.get("filename", ""))
    text = {key.lower(): readable(value) for key, value in stream.metadata.items()}
    return StreamInfo(
        index=stream.index,
        kind=kind,
        codec=codec_name(stream),
        language=text.get("language"),
        title=text.get("title") or text.get("handler_name"),
        description=words,
        is_attached_picture=bool(stream.disposition & STILL_DISPOSITIONS),
        timecode=text.get("timecode"),
        roles=roles_of(stream),
    )
