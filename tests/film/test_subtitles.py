"""Subtitles that a container holds only in another form are converted, text and times kept."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from archivecolor.film import OutputSettings
from archivecolor.film.subtitles import SubtitleConverter
from tests.clips import make_clip
from tests.film.test_writer import through

LINES = [(200, 300, "Guten <i>Tag</i>\nzusammen"), (600, 250, "Ärger & <b>Freude</b>")]


def with_subtitles(path: Path, form: str) -> None:
    """A film of a second with two subtitles in ``form``; text goes in as SubRip and is encoded by FFmpeg."""
    clip = make_clip(path.with_name("picture.mkv"), frames=25)
    plain = path.with_name("plain.srt")
    blocks = []
    for number, (start, length, text) in enumerate(LINES, 1):
        blocks.append(f"{number}\n00:00:00,{start:03d} --> 00:00:00,{start + length:03d}\n{text}\n")
    plain.write_text("\n".join(blocks), encoding="utf-8")
    with av.open(str(clip.path)) as film, av.open(str(plain)) as text_file, av.open(str(path), "w") as output:
        picture = output.add_stream_from_template(film.streams.video[0])
        source: Any = text_file.streams.subtitles[0]
        converter = SubtitleConverter(source, output, form, Fraction(0))
        converter.stream.metadata["language"] = "deu"
        output.start_encoding()
        for packet in film.demux(video=0):
            if packet.size:
                packet.stream = picture
                output.mux(packet)
        for packet in text_file.demux(source):
            if packet.size:
                for ready in converter.convert(packet):
                    output.mux(ready)


def said(path: Path) -> tuple[str, str | None, list[tuple[int, int, str]]]:
    """Codec, language, and (start ms, length ms, plain text) of each subtitle."""
    lines = []
    with av.open(str(path)) as source:
        track: Any = source.streams.subtitles[0]
        for packet in source.demux(track):
            if not packet.size or (subtitles := track.codec_context.decode2(packet)) is None:
                continue
            text = re.sub(r"\{[^}]*\}", "", b"".join(rect.dialogue for rect in subtitles.rects).decode())
            base = packet.time_base * 1000
            lines.append((round(packet.pts * base), round(packet.duration * base), text))
        return track.codec_context.name, track.language, lines


@pytest.mark.parametrize(("form", "target"), [("subrip", "b.mkv"), ("subrip", "b.mp4"), ("ass", "b.mkv")])
def test_a_cut_ends_a_text_too(tmp_path, form, target):
    with_subtitles(tmp_path / "a.mkv", form)
    through(tmp_path / "a.mkv", tmp_path / target, OutputSettings("h264"), start_s=0.1, end_s=0.7)
    times = [(start, length) for start, length, text in said(tmp_path / target)[2] if text]
    assert times == [(100, 300), (500, 100)]


@pytest.mark.parametrize(
    ("source", "form", "target", "expected"),
    [
        ("a.mp4", "mov_text", "b.mkv", "subrip"),
        ("a.mkv", "subrip", "b.mp4", "mov_text"),
        ("a.mkv", "ass", "b.mov", "mov_text"),
        ("a.mkv", "subrip", "b.webm", "webvtt"),
    ],
)
def test_text_is_converted(tmp_path, source, form, target, expected):
    with_subtitles(tmp_path / source, form)
    plan, _ = through(
        tmp_path / source, tmp_path / target, OutputSettings("vp9" if target.endswith("webm") else "h264")
    )
    assert [(c.kind, c.in_words) for c in plan.converted] == [("subtitle", expected)] and not plan.left_out
    codec, language, lines = said(tmp_path / target)
    assert codec == {"subrip": "srt"}.get(expected, expected) and language in ("deu", "ger")
    assert [(start, length) for start, length, _ in lines] == [(200, 300), (600, 250)]
    assert "Guten" in lines[0][2] and "zusammen" in lines[0][2] and "Ärger & Freude" in lines[1][2]


def test_a_form_that_fits_is_copied(tmp_path):
    with_subtitles(tmp_path / "a.mkv", "ass")
    plan, _ = through(tmp_path / "a.mkv", tmp_path / "b.mkv", OutputSettings("h264", preset="ultrafast"))
    assert plan.kept == (1,) and not plan.converted


def test_a_text_without_an_end_is_shown_until_the_next(tmp_path):
    with_subtitles(tmp_path / "a.mkv", "subrip")
    with av.open(str(tmp_path / "a.mkv")) as film, av.open(str(tmp_path / "b.mp4"), "w") as output:
        track = film.streams.subtitles[0]
        converter = SubtitleConverter(track, output, "mov_text", Fraction(0))
        ready = []
        for packet in film.demux(track):
            if packet.size:
                packet.duration = 0
                ready += converter.convert(packet)
        ready += converter.finish()
    assert [(packet.pts, packet.duration) for packet in ready] == [(200, 400), (600, 5000)]
