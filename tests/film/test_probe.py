"""What probing says of films, and in which words it refuses what is not one."""

from __future__ import annotations

import io
import os
import wave
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from archivecolor.errors import FilmDecodeError, FilmOpenError
from archivecolor.film import FilmReader, LumaFrame, probe, read_still, sample_frames
from archivecolor.film.opening import TS_DISCONT
from archivecolor.film.probe import _origin_s
from tests.clips import make_clip, tone


def one_line(error: BaseException, name: str) -> str:
    text = str(error)
    assert name in text and "\n" not in text
    return text


def test_a_film_as_probed(tmp_path):
    path = tmp_path / "Ein Täg – 映画.mkv"
    make_clip(
        path,
        size=(96, 64),
        frames=25,
        sound="aac",
        sound_tracks=2,
        aspect=Fraction(16, 15),
        colour=(6, 5, 6, 1),
        chapters=[(0, 500, "Anfang"), (500, 1000, "Ende")],
        metadata={"title": "Rolle 1"},
    )
    info = probe(path)
    picture = info.picture
    assert (picture.width_px, picture.height_px, picture.pix_fmt, picture.bit_depth) == (96, 64, "yuv420p", 8)
    assert (picture.matrix, picture.full_range, picture.tagged_primaries) == ("smpte170m", False, 5)
    assert picture.sample_aspect_ratio == Fraction(16, 15)
    assert info.duration_s == pytest.approx(1.0, abs=0.05)
    assert info.average_rate == 25 and not info.is_variable_rate and info.frames_estimate in (25, 26)
    assert [(s.kind, s.codec, s.language) for s in info.streams] == [
        ("video", "h264", None), ("audio", "aac", "deu"), ("audio", "aac", "eng"),
    ]  # fmt: skip
    assert [(c.start_s, c.end_s, c.title) for c in info.chapters] == [(0, 0.5, "Anfang"), (0.5, 1, "Ende")]
    assert info.metadata["title"] == "Rolle 1"


@pytest.mark.parametrize(
    ("size", "matrix"),
    [
        ((720, 480), "smpte170m"),
        ((720, 576), "bt470bg"),
        ((1024, 576), "bt470bg"),
        ((1280, 720), "bt709"),
        ((64, 600), "bt709"),
    ],
)
def test_untagged_matrix_by_the_usual_rule(tmp_path, size, matrix):
    make_clip(tmp_path / "a.mp4", size=size, frames=1)
    picture = probe(tmp_path / "a.mp4").picture
    assert picture.matrix == matrix and picture.tagged_matrix == 2 and not picture.full_range


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "colour", "full"),
    [
        ("ffv1", "gray", None, True), ("ffv1", "gray", (2, 2, 2, 1), False), ("ffv1", "yuv420p", None, False),
        ("ffv1", "yuv420p", (1, 1, 1, 2), True), ("mjpeg", "yuvj420p", None, True), ("ffv1", "gray16le", None, True),
    ],
)  # fmt: skip
def test_range(tmp_path, codec, pix_fmt, colour, full):
    make_clip(tmp_path / "a.mkv", codec=codec, pix_fmt=pix_fmt, colour=colour, frames=2)
    assert probe(tmp_path / "a.mkv").picture.full_range is full


@pytest.mark.parametrize("degrees", [90, -90, 180])
def test_rotation(tmp_path, degrees):
    make_clip(tmp_path / "a.mp4", rotation=degrees, frames=2)
    picture = probe(tmp_path / "a.mp4").picture
    assert abs(picture.rotation) == abs(degrees) and picture.display_matrix is not None


def test_variable_rate_is_seen(tmp_path):
    make_clip(tmp_path / "a.mp4", time_base=Fraction(1, 1000), pts=[0, 40, 80, 300, 310, 900, 1000, 1040])
    assert probe(tmp_path / "a.mp4").is_variable_rate


def test_hdr_is_refused_when_it_would_be_colourised(tmp_path):
    make_clip(tmp_path / "a.mkv", pix_fmt="yuv420p10le", colour=(9, 9, 16, 1), frames=2)
    info = probe(tmp_path / "a.mkv")
    assert info.hdr
    with pytest.raises(FilmOpenError, match="HDR") as error:
        FilmReader(info)
    one_line(error.value, "a.mkv")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.mp4", None, "no such file"),
        ("zero.mp4", b"", "empty"),
        ("text.mp4", b"This is a letter about a film, not a film.\n" * 50, "not a film"),
        ("random.mkv", bytes(range(256)) * 40, "not a film"),
        ("raw.yuv", bytes([128]) * 5000, "wrap them first"),
        ("live.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\na.ts\n", "list of other files"),
        ("joined.txt", b"ffconcat version 1.0\nfile /etc/hostname\n", "list of other files"),
    ],
)
def test_what_is_not_a_film_is_refused_in_one_line(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FilmOpenError, match=words) as error:
        probe(path)
    one_line(error.value, name)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(FilmOpenError, match="folder"):
        probe(tmp_path)


def test_a_film_cut_before_its_index_is_refused(tmp_path):
    make_clip(tmp_path / "whole.mp4", frames=50)
    raw = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(raw[: raw.index(b"moov") - 100])
    with pytest.raises(FilmOpenError, match="moov") as error:
        probe(tmp_path / "cut.mp4")
    one_line(error.value, "cut.mp4")


def test_sound_only_is_refused(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(np.zeros(8000, "<i2").tobytes())
    with pytest.raises(FilmOpenError, match="sound only"):
        probe(tmp_path / "a.wav")


def test_cover_art_is_not_the_film(tmp_path):
    picture = io.BytesIO()
    with av.open(picture, "w", format="image2pipe") as jpeg:
        still = jpeg.add_stream("mjpeg", rate=1)
        still.width, still.height, still.pix_fmt = 32, 32, "yuvj420p"
        jpeg.mux(still.encode(av.VideoFrame(32, 32, "yuvj420p")))
        jpeg.mux(still.encode(None))
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = output.add_stream("aac", rate=48000)
        sound.layout = "mono"
        packet = av.Packet(picture.getvalue())
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = cover, 0, 0, True
        packet.time_base = Fraction(1, 1)
        output.start_encoding()
        output.mux(packet)
        output.mux(sound.encode(tone(48000, 0, 1024, "fltp")))
        output.mux(sound.encode(None))
    with pytest.raises(FilmOpenError, match="cover art"):
        probe(tmp_path / "a.mp4")


def test_no_decodable_picture_is_refused(tmp_path):
    make_clip(tmp_path / "a.mkv", codec="ffv1", frames=3)
    with av.open(str(tmp_path / "a.mkv")) as source, av.open(str(tmp_path / "b.mkv"), "w") as output:
        video = output.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                broken = av.Packet(b"\xff" * packet.size)
                broken.pts, broken.dts, broken.time_base, broken.stream = (
                    packet.pts,
                    packet.dts,
                    packet.time_base,
                    video,
                )
                output.mux(broken)
    with pytest.raises(FilmOpenError, match="can be decoded") as error:
        probe(tmp_path / "b.mkv")
    one_line(error.value, "b.mkv")


def test_metadata_that_is_not_utf8_opens(tmp_path):
    make_clip(tmp_path / "a.mp4", metadata={"title": "Stra\udcdfe"}, metadata_errors="surrogateescape", frames=2)
    with pytest.raises(UnicodeDecodeError):
        av.open(str(tmp_path / "a.mp4"))
    info = probe(tmp_path / "a.mp4")
    assert info.metadata["title"] == "Straße"
    info.metadata["title"].encode()


@pytest.mark.parametrize(("neutral", "is_grey"), [(True, True), (False, False)])
def test_samples_say_whether_the_film_is_black_and_white(tmp_path, neutral, is_grey):
    make_clip(tmp_path / "a.mkv", codec="ffv1", frames=40, neutral=neutral)
    samples = sample_frames(probe(tmp_path / "a.mkv"), 6)
    assert samples.is_black_and_white is is_grey
    assert len(samples.luma) >= 3 and samples.luma[0].shape == (48, 64)
    assert samples.times_s[-1] > Fraction(1, 2) and list(samples.times_s) == sorted(samples.times_s)


def test_a_film_without_frames_in_the_cut_is_an_error(tmp_path):
    make_clip(tmp_path / "a.mp4")
    with pytest.raises(FilmDecodeError, match="cut"), FilmReader(tmp_path / "a.mp4", start_s=100) as reader:
        list(reader)


def test_a_crop_of_a_few_columns_is_made(tmp_path):
    clip = make_clip(tmp_path / "a.mkv", size=(96, 64), options={"qp": "0", "x264-params": "crop-rect=8,4,6,2"})
    info = probe(clip.path)
    assert (info.picture.width_px, info.picture.height_px) == (82, 58)
    with FilmReader(clip.path) as reader:
        frames = [item.luma for item in reader if isinstance(item, LumaFrame)]
    assert all(np.array_equal(luma, whole[4:-2, 8:-6]) for luma, whole in zip(frames, clip.luma, strict=True))
    assert sample_frames(info, 2).luma[0].shape == (58, 82)


def test_pictures_that_are_not_what_they_seem_are_refused(tmp_path):
    options = {"x265-params": "interlace=tff:log-level=error", "preset": "ultrafast"}
    make_clip(tmp_path / "fields.mkv", codec="libx265", options=options)
    with pytest.raises(FilmOpenError, match="single fields") as error:
        probe(tmp_path / "fields.mkv")
    one_line(error.value, "fields.mkv")
    options = {"x265-params": "log-level=error", "preset": "ultrafast"}
    make_clip(tmp_path / "a.mp4", codec="libx265", options=options)
    assert not probe(tmp_path / "a.mp4").hdr
    (tmp_path / "dolby.mp4").write_bytes((tmp_path / "a.mp4").read_bytes().replace(b"hev1", b"dvh1"))
    with pytest.raises(FilmOpenError, match="Dolby Vision") as error:
        probe(tmp_path / "dolby.mp4")
    one_line(error.value, "dolby.mp4")


def test_an_encrypted_transport_stream_is_named_as_such(tmp_path):
    make_clip(tmp_path / "a.ts", codec="mpeg2video", options={}, size=(320, 240))
    data = bytearray((tmp_path / "a.ts").read_bytes())
    noise = np.random.default_rng(1).integers(0, 256, len(data), np.uint8).tobytes()
    for at in range(0, len(data), 188):
        if (data[at + 1] & 0x1F) << 8 | data[at + 2] == 0x100:
            data[at + 3] |= 0x80
            begin = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
            data[begin : at + 188] = noise[begin : at + 188]
    (tmp_path / "b.ts").write_bytes(data)
    with pytest.raises(FilmOpenError, match="encrypted") as error:
        probe(tmp_path / "b.ts")
    one_line(error.value, "b.ts")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(FilmOpenError, match="pipe"):
        probe(tmp_path / "a.mp4")
    with pytest.raises(FilmOpenError, match="pipe"):
        read_still(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("name", "sound_starts", "first", "origin_s"),
    [
        ("ogg", -143, 0, 0),
        ("ogg", -143, -2, Fraction(-2, 25)),
        ("ogg", 16_000, 30, 1),
        ("ogg", 16_100, 30, 1),
        ("ogg", 48_000, 30, Fraction(6, 5)),
        ("mpegts", -16_100, -25, Fraction(-26, 25)),  # both clocks wrapped, the sound began before the picture
        ("mpegts", -16_000, 30, -1),
    ],
)
def test_the_origin_is_a_tick_of_the_picture(name, sound_starts, first, origin_s):
    """Speex in Ogg begins a few samples before zero; a picture that counts 25ths of a second cannot move by those."""
    sound = SimpleNamespace(start_time=sound_starts, time_base=Fraction(1, 16_000))
    container: Any = SimpleNamespace(format=SimpleNamespace(name=name, flags=TS_DISCONT), streams=[sound])
    assert _origin_s(container, first, Fraction(1, 25)) == origin_s
