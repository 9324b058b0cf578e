"""Short clips for the tests, made with PyAV."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np


@dataclass
class Clip:
    """A clip as made: its luma planes as given to the encoder, and their times in seconds."""

    path: Path
    luma: list[np.ndarray] = field(default_factory=list)
    times_s: list[Fraction] = field(default_factory=list)


def picture(number: int, width: int, height: int, bits: int = 8, full_range: bool = False) -> np.ndarray:
    """A moving ramp with a bright square, (height, width), code values of the whole legal range."""
    low, high = (0, (1 << bits) - 1) if full_range else (16 << (bits - 8), 235 << (bits - 8))
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    ramp = ((x * 3 + y * 2 + number * 5) % 97) / 96
    ramp[(x // 8 + y // 8 + number) % 7 == 0] = 1.0
    return np.round(low + ramp * (high - low)).astype(np.uint8 if bits == 8 else np.uint16)


def fill_plane(frame: av.VideoFrame, index: int, values: np.ndarray | int) -> None:
    """Put values into one plane of a frame, line by line."""
    plane = frame.planes[index]
    wide = frame.format.components[0].bits > 8
    dtype = np.dtype(">u2" if frame.format.is_big_endian else "<u2") if wide else np.dtype(np.uint8)
    lines: Any = np.frombuffer(plane, dtype).reshape(plane.height, -1)  # type: ignore[call-overload]
    lines[:, : plane.width] = values


def luma_frame(luma: np.ndarray, pix_fmt: str, neutral_chroma: bool = True) -> av.VideoFrame:
    """A planar Y'CbCr or gray frame with this luma and neutral chroma (or strong chroma)."""
    height, width = luma.shape
    frame = av.VideoFrame(width, height, pix_fmt)
    fill_plane(frame, 0, luma)
    bits = frame.format.components[0].bits
    neutral = 1 << (bits - 1)
    for index in range(1, len(frame.planes)):
        fill_plane(frame, index, neutral if neutral_chroma else (neutral * 3) // 2)
    return frame


def tone(rate_hz: int, number: int, samples: int, fmt: str) -> av.AudioFrame:
    """Mono sine, ``samples`` long, starting at sample ``number``."""
    phase = (np.arange(samples) + number) * 440 * 2 * np.pi / rate_hz
    wave = np.sin(phase) * 0.5
    dtype = {"s16": np.int16, "s32": np.int32}.get(fmt[:3])
    array = wave.astype(np.float32) if dtype is None else (wave * np.iinfo(dtype).max).astype(dtype)
    frame = av.AudioFrame.from_ndarray(array[None, :], format=fmt, layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, number, Fraction(1, rate_hz)
    return frame


def make_clip(
    path: Path,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    frames: int = 12,
    rate: Fraction | int = 25,
    time_base: Fraction | None = None,
    pts: list[int] | None = None,
    options: dict[str, str] | None = None,
    sound: str | None = None,
    sound_tracks: int = 1,
    languages: tuple[str, ...] = ("deu", "eng"),
    aspect: Fraction | None = None,
    rotation: int = 0,
    colour: tuple[int, int, int, int] | None = None,
    full_range: bool = False,
    neutral: bool = True,
    chapters: list[tuple[int, int, str]] | None = None,
    metadata: dict[str, str] | None = None,
    timecode: str | None = None,
    attachment: bytes | None = None,
    container: str | None = None,
    metadata_errors: str = "strict",
) -> Clip:
    """Make a film. ``pts`` are ticks of ``time_base`` (default: every tick of 1/rate from zero).

    ``colour`` is (matrix, primaries, transfer, range) in H.273 codes; ``chapters`` are (start ms, end ms, title).
    x264 is lossless unless ``options`` say otherwise, so that `Clip.luma` is what decodes.
    """
    rate = Fraction(rate)
    base = time_base or 1 / rate
    ticks = pts if pts is not None else [round(n / rate / base) for n in range(frames)]
    width, height = size
    bits = av.VideoFormat(pix_fmt).components[0].bits
    clip = Clip(path)
    with av.open(str(path), "w", format=container, metadata_errors=metadata_errors) as output:
        video = output.add_stream(codec, rate=rate, options=_options(codec, options))
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        video.codec_context.time_base = base
        video.time_base = base
        if aspect is not None:
            video.codec_context.sample_aspect_ratio = aspect
        if rotation:
            video.set_display_rotation(rotation)
        if colour is not None:
            context = video.codec_context
            context.colorspace, context.color_primaries, context.color_trc, context.color_range = colour
        if timecode:
            video.metadata["timecode"] = timecode
        tracks = []
        for number in range(sound_tracks if sound else 0):
            track = output.add_stream(sound, rate=48000)
            track.layout = "mono"
            track.metadata["language"] = languages[number]
            tracks.append(track)
        if attachment is not None:
            output.add_attachment("note.txt", "text/plain", attachment)
        output.metadata.update(metadata or {})
        if chapters:
            output.set_chapters(
                [
                    {"id": n, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                    for n, (a, b, title) in enumerate(chapters)
                ]
            )
        if tracks:
            _write_sound(output, tracks, float(len(ticks) / rate))
        for number, tick in enumerate(ticks):
            luma = picture(number, width, height, bits, full_range)
            frame = luma_frame(luma, pix_fmt, neutral)
            if colour is not None:
                frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = colour
            frame.pts, frame.time_base = tick, base
            output.mux(video.encode(frame))
            clip.luma.append(luma)
            clip.times_s.append(tick * base)
        output.mux(video.encode(None))
    return clip


def _options(codec: str, options: dict[str, str] | None) -> dict[str, str]:
    if options is not None:
        return options
    return {"qp": "0", "preset": "ultrafast"} if codec == "libx264" else {}


def _write_sound(output: Any, tracks: list[Any], seconds: float) -> None:
    for track in tracks:
        fmt = track.format.name
        for number in range(0, int(seconds * 48000), 1024):
            output.mux(track.encode(tone(48000, number, 1024, fmt)))
        output.mux(track.encode(None))


@dataclass
class ReadBack:
    """A file seen through PyAV alone, as a check on archivecolor's own reader."""

    times_s: list[Fraction]
    luma: list[np.ndarray]
    sound: list[tuple[str | None, list[Fraction], str]]
    metadata: dict[str, str]
    chapters: list[tuple[int, int, str | None]]
    aspect: Fraction | None
    rotation: int
    colour: tuple[int, int, int, int]
    pix_fmt: str
    duration_s: float
    codecs: list[str | None]


def read_back(path: Path) -> ReadBack:
    """Decode everything of a finished file; ``sound`` is (language, packet times, hash of all bytes) per track."""
    with av.open(str(path), metadata_errors="surrogateescape") as source:
        video = source.streams.video[0]
        back = ReadBack(
            [],
            [],
            [],
            dict(source.metadata),
            [
                (
                    round(c["start"] * c["time_base"] * 1000),
                    round(c["end"] * c["time_base"] * 1000),
                    c["metadata"].get("title"),
                )
                for c in source.chapters()
                if c["time_base"]
            ],
            video.sample_aspect_ratio,
            0,
            (2, 2, 2, 0),
            "",
            (source.duration or 0) / 1e6,
            [s.codec_context.name if s.codec_context else getattr(s, "name", None) for s in source.streams],
        )
        hashes = {s.index: hashlib.sha256() for s in source.streams.audio}
        times: dict[int, list[Fraction]] = {s.index: [] for s in source.streams.audio}
        for packet in source.demux():
            if packet.stream.index in hashes and packet.size and packet.pts is not None:
                hashes[packet.stream_index].update(bytes(packet))
                times[packet.stream_index].append(packet.pts * packet.time_base)
            elif packet.stream.index == video.index:
                try:
                    decoded = packet.decode()
                except av.error.InvalidDataError:
                    continue
                for frame in decoded:
                    plane = frame.planes[0]
                    wide = frame.format.components[0].bits > 8
                    lines: Any = np.frombuffer(plane, np.uint16 if wide else np.uint8).reshape(plane.height, -1)  # type: ignore[call-overload]
                    back.luma.append(lines[:, : plane.width].copy())
                    back.times_s.append((frame.pts or 0) * packet.time_base)
                    back.rotation, back.pix_fmt = frame.rotation, frame.format.name
                    back.colour = (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
        back.sound = [(s.language, times[s.index], hashes[s.index].hexdigest()) for s in source.streams.audio]
        return back
