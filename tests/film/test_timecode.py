"""Time code counted forward, dropped numbers and midnight included."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest

from archivecolor.film import OutputSettings
from archivecolor.film.timecode import doubled_timecode, later_timecode
from tests.clips import make_clip
from tests.film.test_writer import through

NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("timecode", "frames", "rate", "expected"),
    [
        ("10:00:00:00", 37, Fraction(25), "10:00:01:12"),
        ("23:59:59:24", 1, Fraction(25), "00:00:00:00"),
        ("00:00:59;29", 1, NTSC, "00:01:00;02"),
        ("00:09:59;29", 1, NTSC, "00:10:00;00"),
        ("00:01:59;29", 1, NTSC, "00:02:00;02"),
        ("01:00:00;00", 17982, NTSC, "01:10:00;00"),
        ("00:00:00;00", 1800, NTSC, "00:01:00;02"),
        ("00:00:59:29", 1, NTSC, "00:01:00:00"),
        ("00:00:59;59", 1, Fraction(60000, 1001), "00:01:00;04"),
    ],
)
def test_later(timecode, frames, rate, expected):
    assert later_timecode(timecode, frames, rate) == expected


def test_every_drop_frame_number_of_a_day_is_reached_once():
    seen = {later_timecode("00:00:00;00", number, NTSC) for number in range(0, 2589408, 997)}
    assert len(seen) == len(range(0, 2589408, 997))
    assert not any(text and text[3:5] != "00" and text[4] != "0" and text[6:] in ("00;00", "00;01") for text in seen)


def test_what_is_no_time_code_is_left_alone():
    assert later_timecode("reel 4", 10, Fraction(25)) is None


def test_a_cut_has_the_time_code_of_its_first_frame(tmp_path):
    clip = make_clip(tmp_path / "a.mov", timecode="10:00:00:00", frames=50)
    for suffix in (".mov", ".mkv", ".mp4"):
        target = tmp_path / f"b{suffix}"
        through(clip.path, target, OutputSettings("h264", preset="ultrafast"), start_s=1.2)
        with av.open(str(target)) as source:
            tags = {**source.metadata, **source.streams.video[0].metadata}
            assert {key.lower(): value for key, value in tags.items()}["timecode"] == "10:00:01:05"


@pytest.mark.parametrize(
    ("timecode", "doubled"), [("10:00:00:12", "10:00:00:24"), ("1:59:59;29", "01:59:59;58"), ("x", None)]
)
def test_doubled(timecode, doubled):
    assert doubled_timecode(timecode) == doubled


def test_fields_that_become_frames_count_twice(tmp_path):
    options = {"preset": "ultrafast", "x264-params": "tff=1", "flags": "+ildct+ilme"}
    clip = make_clip(tmp_path / "a.mov", timecode="10:00:00:12", frames=30, options=options)
    for start_s, expected in ((None, "10:00:00:24"), (0.6, "10:00:01:04")):
        through(clip.path, tmp_path / "b.mov", OutputSettings("h264"), start_s=start_s, deinterlace="fields")
        with av.open(str(tmp_path / "b.mov")) as source:
            assert source.streams.video[0].metadata["timecode"] == expected
