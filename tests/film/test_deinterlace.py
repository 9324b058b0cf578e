"""Interlaced sources: seen as such, deinterlaced one or two for one, or kept and marked with their field order."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from archivecolor.errors import FilmEncodeError
from archivecolor.film import FilmReader, LumaFrame, OutputSettings, plan_output, probe
from archivecolor.film.field_order import FieldMarker, FieldOrderReader
from tests.clips import luma_frame
from tests.film.test_writer import through

SIZE = (96, 64)


def bar(at: int) -> np.ndarray:
    """A white bar on black."""
    luma = np.full(SIZE[::-1], 16, np.uint8)
    luma[:, at : at + 12] = 235
    return luma


def interlaced_clip(
    path: Path, *, top_first: bool = True, codec: str = "mpeg2video", frames: int = 8
) -> list[np.ndarray]:
    """A bar that moves two columns a field; returns the moments as whole pictures."""
    moments = [bar(2 * n) for n in range(2 * frames)]
    mark = FieldMarker("yuv420p", *SIZE, top_field_first=top_first)
    with av.open(str(path), "w") as output:
        video = output.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        order = "tt" if top_first else "bb"
        video.codec_context.options = {"flags": "+ildct+ilme", "field_order": order, "qmin": "1", "b": "8M"}
        if codec == "libx265":  # says nothing of fields
            video.codec_context.options = {"x265-params": "log-level=error", "crf": "4"}
        for number in range(frames):
            woven = moments[2 * number].copy()
            late = 1 if top_first else 0  # lines of the field shown second
            woven[late::2] = moments[2 * number + 1][late::2]
            frame = luma_frame(woven, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(video.encode(mark(frame)))
        output.mux(video.encode(None))
    return moments


def frames_of(path: Path, mode: str) -> tuple[list[LumaFrame], FilmReader]:
    with FilmReader(path, deinterlace=mode) as reader:  # type: ignore[arg-type]
        return [item for item in reader if isinstance(item, LumaFrame)], reader


@pytest.mark.parametrize("top_first", [True, False])
def test_each_field_becomes_a_frame_at_its_own_time(tmp_path, top_first):
    moments = interlaced_clip(tmp_path / "a.mkv", top_first=top_first)
    assert probe(tmp_path / "a.mkv").picture.top_field_first is top_first
    frames, reader = frames_of(tmp_path / "a.mkv", "fields")
    assert [frame.time_s for frame in frames] == [Fraction(n, 50) for n in range(16)]
    assert reader.info.average_rate == 50 and not reader.info.picture.interlaced
    assert (reader.report.frames, reader.report.given, reader.report.deinterlaced) == (8, 16, 8)
    for number, frame in enumerate(frames[1:-1], 1):  # the wrong order would show the bar two columns off
        assert np.abs(frame.luma.astype(int) - moments[number]).mean() < 3
        assert np.abs(frame.luma.astype(int) - moments[number ^ 1]).mean() > 8


@pytest.mark.parametrize("name", ["a.mkv", "a.ts"])
def test_both_fields_in_a_frame_of_hevc(tmp_path, name):
    path = tmp_path / name
    moments = interlaced_clip(path, codec="libx265")
    assert not probe(path).picture.interlaced
    content = path.read_bytes()
    for before in (b"\x01\x60\0\0\0", b"\x01\x60\0\0\3\0"):  # the flags of the source, plain and escaped
        content = content.replace(before + b"\x90", before + b"\x40")
    path.write_bytes(content)
    assert probe(path).picture.top_field_first is True
    frames, reader = frames_of(path, "auto")
    assert reader.report.deinterlaced == len(frames) == 8
    for number, frame in enumerate(frames[1:-1], 1):
        assert np.abs(frame.luma.astype(int) - moments[2 * number]).mean() < 4


def test_auto_gives_a_frame_for_a_frame(tmp_path):
    moments = interlaced_clip(tmp_path / "a.mkv")
    frames, reader = frames_of(tmp_path / "a.mkv", "auto")
    assert [frame.time_s for frame in frames] == [Fraction(n, 25) for n in range(8)]
    assert not reader.info.picture.interlaced
    for number, frame in enumerate(frames[1:-1], 1):
        assert np.abs(frame.luma.astype(int) - moments[2 * number]).mean() < 3


def test_off_keeps_the_fields_woven(tmp_path):
    interlaced_clip(tmp_path / "a.mkv")
    frames, reader = frames_of(tmp_path / "a.mkv", "off")
    assert reader.info.picture.interlaced and len(frames) == 8
    comb = np.abs(np.diff(frames[4].luma.astype(int), axis=0)).mean()
    assert comb > 5


@pytest.mark.parametrize("mode", ["auto", "fields"])
def test_progressive_frames_are_left_alone(tmp_path, mode):
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        video = output.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = *SIZE, "gray10le"
        for number in range(4):
            video_frame = luma_frame(bar(number).astype(np.uint16) * 4, "gray10le")
            video_frame.pts, video_frame.time_base = number, Fraction(1, 25)
            output.mux(video.encode(video_frame))
        output.mux(video.encode(None))
    frames, reader = frames_of(tmp_path / "a.mkv", mode)
    assert [frame.time_s for frame in frames] == [Fraction(n, 25) for n in range(4)]
    assert all(np.array_equal(frame.luma, bar(n) * np.uint16(4)) for n, frame in enumerate(frames))
    assert reader.report.deinterlaced == 0


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp4", "h264"), (".mov", "h264"), (".mkv", "h264"), (".mkv", "ffv1"), (".mov", "prores")]
)
def test_kept_fields_are_marked_in_the_output(tmp_path, suffix, codec, top_first):
    interlaced_clip(tmp_path / "a.mkv", top_first=top_first)
    through(tmp_path / "a.mkv", tmp_path / f"b{suffix}", OutputSettings(codec=codec))
    order = FieldOrderReader()
    with av.open(str(tmp_path / f"b{suffix}")) as source:
        assert source.streams.video[0].codec_context.field_order == (2 if top_first else 3)
        frames = list(source.decode(video=0))
        assert len(frames) == 8
        assert all(f.interlaced_frame and order.top_field_first(f) is top_first for f in frames)


def test_deinterlaced_output_is_marked_progressive(tmp_path):
    interlaced_clip(tmp_path / "a.mkv")
    plan, writer = through(tmp_path / "a.mkv", tmp_path / "b.mp4", deinterlace="fields")
    assert not plan.interlaced and writer.frames == 16
    with av.open(str(tmp_path / "b.mp4")) as source:
        frames = list(source.decode(video=0))
        assert not any(frame.interlaced_frame for frame in frames)
        assert [frame.pts * frame.time_base for frame in frames] == [Fraction(n, 50) for n in range(16)]


def test_a_codec_that_cannot_mark_fields_is_refused(tmp_path):
    interlaced_clip(tmp_path / "a.mkv")
    with pytest.raises(FilmEncodeError, match=r"cannot mark interlaced.*ffv1"):
        plan_output(probe(tmp_path / "a.mkv"), tmp_path / "b.mkv", OutputSettings(codec="hevc"))
