"""Outputs decided beforehand: what fits is planned, what does not is refused with what would."""

from __future__ import annotations

from pathlib import Path

import pytest

from archivecolor.errors import FilmEncodeError, FilmOpenError
from archivecolor.film import OutputSettings, default_extension, plan_output, probe
from tests.clips import make_clip


def planned(tmp_path, name, clip=None, **settings):
    source = tmp_path / "a.mkv"
    make_clip(source, frames=2, **(clip or {}))
    return plan_output(probe(source), tmp_path / name, OutputSettings(**settings))


def refused(tmp_path, name, clip=None, **settings):
    with pytest.raises(FilmEncodeError) as error:
        planned(tmp_path, name, clip, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("b.mp4", {}, ("mp4", "libx264", "yuv420p")),
        ("b.M4V", {}, ("mp4", "libx264", "yuv420p")),
        ("b.mov", {}, ("mov", "prores_ks", "yuv422p10le")),
        ("b.mkv", {}, ("matroska", "ffv1", "yuv420p")),
        ("b.mkv", {"profile": "access"}, ("matroska", "libx264", "yuv420p")),
        ("b.mov", {"profile": "access"}, ("mov", "libx264", "yuv420p")),
        ("b.mkv", {"profile": "mezzanine"}, ("matroska", "prores_ks", "yuv422p10le")),
        ("b.mkv", {"profile": "preservation"}, ("matroska", "ffv1", "yuv420p")),
        ("b.mov", {"profile": "hevc"}, ("mov", "libx265", "yuv420p")),
        ("b.mp4", {"profile": "av1"}, ("mp4", "libsvtav1", "yuv420p")),
        ("b.mp4", {"profile": "hevc", "codec": "h264"}, ("mp4", "libx264", "yuv420p")),
        ("b.webm", {}, ("webm", "libvpx-vp9", "yuv420p")),
        ("b.part", {"container": ".mkv"}, ("matroska", "ffv1", "yuv420p")),
        ("b.mov", {"codec": "prores"}, ("mov", "prores_ks", "yuv422p10le")),
        ("b.mp4", {"codec": "h265"}, ("mp4", "libx265", "yuv420p")),
        ("b.mkv", {"codec": "AV1"}, ("matroska", "libsvtav1", "yuv420p")),
        ("b.mkv", {"codec": "ffv1"}, ("matroska", "ffv1", "yuv420p")),
        ("b.mp4", {"pix_fmt": "yuv422p10le"}, ("mp4", "libx264", "yuv422p10le")),
    ],
)
def test_container_encoder_and_pixel_format(tmp_path, name, settings, expected):
    plan = planned(tmp_path, name, {"size": (128, 96)}, **settings)
    assert (plan.format_name, plan.encoder, plan.pix_fmt) == expected


def test_ffv1_is_what_archives_ask_for(tmp_path):
    plan = planned(tmp_path, "b.mkv", {"size": (320, 240)}, codec="ffv1")
    assert plan.encoder_options == {"level": "3", "g": "1", "slicecrc": "1", "slices": "16"} and plan.lossless


@pytest.mark.parametrize(("size", "slices"), [((3, 5), "4"), ((2, 2), "4"), ((1, 9), "1"), ((250, 250), "4")])
def test_ffv1_of_tiny_pictures_starts(tmp_path, size, slices):
    plan = planned(tmp_path, "b.mkv", {"size": size, "codec": "libx264", "pix_fmt": "yuv444p"})
    assert plan.encoder_options["slices"] == slices


def test_x264_is_set_for_steady_colour_unless_a_preset_is_asked_for(tmp_path):
    own = planned(tmp_path, "b.mp4", {"size": (128, 96)})
    asked = planned(tmp_path, "b.mp4", {"size": (128, 96)}, preset="veryfast")
    assert "subme=7" in own.encoder_options["x264-params"]
    assert all("chroma-qp-offset=-4" in plan.encoder_options["x264-params"] for plan in (own, asked))
    assert asked.encoder_options["preset"] == "veryfast" and "subme" not in str(asked.encoder_options)


@pytest.mark.parametrize(
    ("pix_fmt", "settings", "expected"),
    [
        ("yuv420p10le", {"codec": "h264"}, "yuv420p"),
        ("yuv420p10le", {"keep_luma": True}, "yuv420p10le"),
        ("yuv420p10le", {"codec": "hevc"}, "yuv420p10le"),
        ("yuv422p12le", {"codec": "hevc"}, "yuv420p10le"),
        ("yuv422p12le", {"codec": "hevc", "keep_luma": True}, "yuv420p12le"),
        ("yuv422p12le", {"codec": "ffv1"}, "yuv422p12le"),
        ("gray10le", {"codec": "ffv1"}, "yuv420p10le"),
        ("yuv422p10le", {"codec": "h264", "crf": 0}, "yuv422p10le"),
    ],
)
def test_depth(tmp_path, pix_fmt, settings, expected):
    plan = planned(tmp_path, "b.mkv", {"codec": "ffv1", "pix_fmt": pix_fmt, "size": (128, 96)}, **settings)
    assert plan.pix_fmt == expected
    source_bits = probe(tmp_path / "a.mkv").picture.bit_depth
    assert any(f"{source_bits} bits" in text for text in plan.warnings) is (plan.bit_depth < source_bits)


@pytest.mark.parametrize(("name", "keeps"), [("b.mp4", "--pix-fmt yuv420p10le keeps 10"), ("b.mov", ".mkv) keeps all")])
def test_what_would_keep_the_depth_is_said(tmp_path, name, keeps):
    plan = planned(tmp_path, name, {"codec": "ffv1", "pix_fmt": "yuv422p12le", "size": (128, 96)})
    assert any(text.endswith(keeps) for text in plan.warnings)


def test_tags_say_what_the_picture_is(tmp_path):
    plan = planned(tmp_path, "b.mp4", {"colour": (5, 5, 1, 2)})
    assert (plan.matrix, plan.tag_matrix, plan.tag_primaries, plan.tag_transfer) == ("bt470bg", 5, 5, 1)
    assert plan.full_range
    untagged = planned(tmp_path, "b.mp4")
    # The chroma that is made needs a matrix that is said; primaries and transfer stay unknown.
    assert (untagged.matrix, untagged.tag_matrix, untagged.tag_primaries) == ("smpte170m", 6, 2)


@pytest.mark.parametrize(
    ("code", "words"), [(8, "in ycgco, the output in smpte170m"), (10, "bt2020c"), (6, ""), (2, "")]
)
def test_a_matrix_that_is_not_kept_is_said(tmp_path, code, words):
    plan = planned(tmp_path, "b.mkv", {"codec": "ffv1", "colour": (code, 1, 1, 1)})
    said = [text for text in plan.warnings if "greys are the same" in text]
    assert (len(said), words in "".join(said), plan.tag_matrix) == (bool(words), True, 6)


def test_quicktime_cannot_say_full_range_for_prores(tmp_path):
    plan = planned(tmp_path, "b.mov", {"colour": (1, 1, 1, 2)}, codec="prores")
    assert not plan.full_range and any("full range" in text for text in plan.warnings)
    assert "mkv" in refused(tmp_path, "b.mov", {"colour": (1, 1, 1, 2)}, codec="prores", keep_luma=True)


def test_what_does_not_fit_is_refused_naming_what_would(tmp_path):
    assert ".mkv" in refused(tmp_path, "b.xyz") and ".mp4" in refused(tmp_path, "b")
    assert "ffv1" in refused(tmp_path, "b.mp4", codec="nonsense")
    assert "not a video encoder" in refused(tmp_path, "b.mp4", codec="aac")
    assert ".mkv" in refused(tmp_path, "b.webm", codec="h264")
    assert ".mov" in refused(tmp_path, "b.webm", codec="prores")
    assert refused(tmp_path, "b.mov", codec="ffv1").endswith("write .mkv instead")
    assert refused(tmp_path, "b.png").endswith(f"{tmp_path / 'b'}/%06d.png")
    assert "yuv420p10le" in refused(tmp_path, "b.mp4", pix_fmt="gray")
    assert "yuv422p10le" in refused(tmp_path, "b.mov", codec="prores", pix_fmt="yuv420p")
    assert "preservation" in refused(tmp_path, "b.mp4", profile="nonsense")
    assert ".mkv" in refused(tmp_path, "b.mp4", profile="preservation")
    assert ".mov" in refused(tmp_path, "b.mp4", profile="mezzanine")
    assert "no pixel format" in refused(tmp_path, "b.mp4", pix_fmt="nonsense")
    assert "no crf" in refused(tmp_path, "b.mkv", codec="ffv1", crf=20)
    assert "no presets" in refused(tmp_path, "b.mkv", codec="ffv1", preset="slow")
    assert "does not start" in refused(tmp_path, "b.mp4", preset="nonsense")
    deep = {"codec": "ffv1", "pix_fmt": "gray16le"}
    assert "ffv1" in refused(tmp_path, "b.mp4", deep, keep_luma=True)
    assert "16" in refused(tmp_path, "b.mkv", deep, codec="ffv1", pix_fmt="yuv420p10le", keep_luma=True)


def test_sound_that_does_not_fit_is_converted_and_said(tmp_path):
    plan = planned(tmp_path, "b.webm", {"sound": "aac"})
    assert [(c.index, c.codec, c.in_words) for c in plan.converted] == [(1, "aac", "Opus, which is lossy")]
    assert planned(tmp_path, "b.mp4", {"sound": "aac", "sound_tracks": 2}).kept == (1, 2)
    pcm = planned(tmp_path, "b.mp4", {"sound": "pcm_s16le"})
    assert [c.in_words for c in pcm.converted] == ["ALAC, 16 bit, without loss"] and not pcm.kept
    assert planned(tmp_path, "b.mov", {"sound": "pcm_s16le"}).kept == (1,)


def test_sound_of_no_known_codec_is_left_out_and_said(tmp_path):
    make_clip(tmp_path / "a.mov", frames=2, sound="pcm_s16le", sound_tracks=2)
    raw = bytearray((tmp_path / "a.mov").read_bytes())
    at = raw.rindex(b"sowt")
    raw[at : at + 4] = b"q?!x"
    (tmp_path / "a.mov").write_bytes(raw)
    plan = plan_output(probe(tmp_path / "a.mov"), tmp_path / "b.mkv", OutputSettings())
    assert plan.kept == (1,) and [(out.index, out.kind) for out in plan.left_out] == [(2, "audio")]
    assert "damaged?" in plan.left_out[0].reason


def test_planning_refuses_hdr(tmp_path):
    with pytest.raises(FilmOpenError, match="HLG"):
        planned(tmp_path, "b.mp4", {"pix_fmt": "yuv420p10le", "colour": (9, 9, 18, 1)})


def test_odd_sizes_are_said(tmp_path):
    plan = planned(tmp_path, "b.mp4", {"codec": "ffv1", "size": (33, 20)})
    assert plan.pix_fmt == "yuv444p" and any("33x20" in text for text in plan.warnings)


@pytest.mark.parametrize(
    ("name", "profile", "expected"),
    [
        ("a.mp4", None, ".mp4"), ("a.MOV", None, ".mov"), ("a.mkv", None, ".mkv"), ("a.avi", None, ".mkv"),
        ("a.ts", None, ".mkv"), ("a.avi", "access", ".mp4"), ("a.mp4", "preservation", ".mkv"),
        ("a.mp4", "mezzanine", ".mov"), ("a.mkv", "mezzanine", ".mkv"), ("a.mov", "av1", ".mp4"),
    ],
)  # fmt: skip
def test_default_extension(name, profile, expected):
    assert default_extension(Path(name), profile) == expected
