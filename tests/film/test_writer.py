"""Reader to writer: what goes in comes out, checked with PyAV alone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from archivecolor.errors import FilmEncodeError
from archivecolor.film import FilmReader, FilmWriter, OutputSettings, SidePacket, plan_output
from archivecolor.film.matroska import display_size, set_display_size
from tests.clips import fill_plane, luma_frame, make_clip, picture, read_back

X264 = OutputSettings("h264", preset="ultrafast")
FFV1 = OutputSettings(codec="ffv1", keep_luma=True)


def through(source: Path, target: Path, settings: OutputSettings = X264, **cut):
    """A film with its own luma and neutral chroma, written as a temporary name would be."""
    unfinished = target.with_name(target.name + ".part")
    with FilmReader(source, **cut) as reader:
        plan = plan_output(reader.info, target, settings)
        picture_info, (across, down) = reader.info.picture, plan.log2_chroma
        shape = -(-picture_info.height_px // (1 << down)), -(-picture_info.width_px // (1 << across))
        kind = np.uint8 if plan.bit_depth == 8 else np.uint16
        neutral = np.full(shape, 1 << (plan.bit_depth - 1), kind)
        with FilmWriter(unfinished, reader.info, plan, offset_s=reader.time_offset_s) as writer:
            for item in reader:
                if isinstance(item, SidePacket):
                    writer.copy(item)
                else:
                    shift = plan.bit_depth - picture_info.bit_depth
                    luma = (item.luma.astype(np.float64) * 2.0**shift).astype(kind)
                    writer.write(luma, neutral, neutral, item.pts_ticks, item.time_base, item.duration_ticks)
    unfinished.rename(target)
    return plan, writer


def assert_same_times(source: Path, target: Path, offset_s: Fraction = Fraction(0)) -> None:
    before, after = read_back(source), read_back(target)
    tolerance = Fraction(1, 2000) if target.suffix in (".mkv", ".webm") else 0
    assert len(after.times_s) == len(before.times_s) > 0
    for old, new in zip(before.times_s, after.times_s, strict=True):
        assert abs(old - offset_s - new) <= tolerance


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_everything_about_a_film_survives(tmp_path, suffix):
    clip = make_clip(
        tmp_path / "a.mkv",
        size=(96, 64),
        frames=50,
        rate=Fraction(24000, 1001),
        time_base=Fraction(1, 1000),
        sound="aac",
        sound_tracks=2,
        aspect=Fraction(16, 15),
        rotation=90,
        colour=(6, 5, 6, 1),
        chapters=[(0, 1000, "Anfang"), (1000, 2000, "Ende")],
        metadata={"title": "Rolle 1", "comment": "geprüft"},
        options={"bf": "3", "crf": "20"},
    )
    target = tmp_path / f"b{suffix}"
    through(clip.path, target)
    assert_same_times(clip.path, target)
    before, after = read_back(clip.path), read_back(target)
    german = "ger" if suffix == ".mov" else "deu"  # QuickTime has its own list of codes
    assert [language for language, _, _ in after.sound] == [german, "eng"]
    assert [data for _, _, data in after.sound] == [data for _, _, data in before.sound]
    for (_, old, _), (_, new, _) in zip(before.sound, after.sound, strict=True):
        assert max(abs(a - b) for a, b in zip(old, new, strict=True)) <= Fraction(1, 1000)
    assert after.chapters == before.chapters
    assert after.metadata["title"] == "Rolle 1"
    assert {key.lower(): value for key, value in after.metadata.items()}["comment"] == "geprüft"
    assert after.aspect == Fraction(16, 15)
    assert after.rotation == before.rotation != 0
    assert after.colour == (6, 5, 6, 1)
    assert after.duration_s == pytest.approx(before.duration_s, abs=1001 / 24000 + 0.001)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize(
    ("time_base", "pts"),
    [
        (Fraction(1, 1000), [0, 33, 67, 68, 500, 533, 2000, 2001, 2100, 5000]),
        (Fraction(1, 90000), [180180 + 3003 * n for n in range(12)]),
        (Fraction(1001, 24000), [5, 6, 7, 9, 10, 14, 15, 16]),
        (Fraction(1, 12800), [512 * n for n in range(20)]),
    ],
)
def test_every_frame_at_its_own_time(tmp_path, suffix, time_base, pts):
    clip = make_clip(tmp_path / "a.mov", time_base=time_base, pts=pts, options={"bf": "2", "crf": "20"})
    settings = (
        OutputSettings() if suffix == ".webm" else OutputSettings("h264", preset="veryfast")
    )  # veryfast has B-frames
    through(clip.path, tmp_path / f"b{suffix}", settings)
    assert_same_times(clip.path, tmp_path / f"b{suffix}")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_stays_in_step_with_a_picture_that_begins_late(tmp_path, suffix):
    pts = [2002 + 1001 * n for n in range(40)]
    clip = make_clip(tmp_path / "a.mp4", time_base=Fraction(1, 30000), rate=30, pts=pts, sound="aac")
    through(clip.path, tmp_path / f"b{suffix}")
    assert_same_times(clip.path, tmp_path / f"b{suffix}")
    before, after = read_back(clip.path), read_back(tmp_path / f"b{suffix}")
    assert before.sound[0][1][0] < 0  # the encoder's priming lies before zero
    assert abs(after.sound[0][1][0] - before.sound[0][1][0]) <= Fraction(1, 1000)


def test_a_transport_stream_is_rebased_by_one_offset(tmp_path):
    pts = [n * 3600 + 90000 * 7200 for n in range(30)]
    make_clip(tmp_path / "a.ts", time_base=Fraction(1, 90000), pts=pts, sound="mp2", options={"preset": "ultrafast"})
    before = read_back(tmp_path / "a.ts")
    origin = min(before.times_s[0], before.sound[0][1][0])
    through(tmp_path / "a.ts", tmp_path / "b.mp4")
    assert_same_times(tmp_path / "a.ts", tmp_path / "b.mp4", origin)
    after = read_back(tmp_path / "b.mp4")
    assert after.sound[0][2] == before.sound[0][2]
    assert abs((after.times_s[0] - after.sound[0][1][0]) - (before.times_s[0] - before.sound[0][1][0])) < Fraction(
        1, 40000
    )


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "written", "colour"),
    [
        ("libx264", "yuv420p", "yuv420p", None), ("libx264", "yuv420p10le", "yuv420p10le", None),
        ("libx264", "yuv444p", "yuv444p", None), ("ffv1", "gray", "yuv420p", None),
        ("ffv1", "gray10le", "yuv420p10le", None), ("ffv1", "yuv422p12le", "yuv422p12le", None),
        ("ffv1", "gray16le", "yuv420p16le", None), ("ffv1", "yuv420p", "yuv420p", (1, 1, 1, 2)),
        ("ffv1", "yuv420p9le", "yuv420p9le", None), ("ffv1", "yuv440p", "yuv440p", None),
    ],
)  # fmt: skip
def test_ffv1_keeps_luma_bit_for_bit(tmp_path, codec, pix_fmt, written, colour):
    clip = make_clip(tmp_path / "a.mkv", codec=codec, pix_fmt=pix_fmt, colour=colour, full_range=pix_fmt[0] == "g")
    plan, _ = through(clip.path, tmp_path / "b.mkv", FFV1)
    after = read_back(tmp_path / "b.mkv")
    assert plan.lossless and after.pix_fmt == written
    assert after.colour[3] == (2 if pix_fmt.startswith("gray") or colour else 1)
    assert len(after.luma) == 12
    assert all(np.array_equal(a, b) for a, b in zip(after.luma, clip.luma, strict=True))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_lossless_h264_keeps_luma_bit_for_bit(tmp_path, pix_fmt):
    clip = make_clip(tmp_path / "a.mkv", pix_fmt=pix_fmt)
    through(clip.path, tmp_path / "b.mp4", OutputSettings(crf=0, preset="ultrafast", keep_luma=True))
    after = read_back(tmp_path / "b.mp4")
    assert all(np.array_equal(a, b) for a, b in zip(after.luma, clip.luma, strict=True))


@pytest.mark.parametrize("size", [(1, 1), (33, 17), (34, 17), (161, 121)])
@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", None), (".mkv", "ffv1"), (".webm", None)])
def test_odd_sizes_stay_as_they_are(tmp_path, size, suffix, codec):
    clip = make_clip(tmp_path / "a.mkv", codec="ffv1", size=size, frames=3)
    through(clip.path, tmp_path / f"b{suffix}", OutputSettings(codec=codec))
    assert [luma.shape for luma in read_back(tmp_path / f"b{suffix}").luma] == [size[::-1]] * 3


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mkv", "ffv1"), (".mkv", "h264"), (".webm", "vp9"), (".mov", "prores")]
)
def test_sample_aspect_is_recorded_by_the_container(tmp_path, suffix, codec):
    clip = make_clip(
        tmp_path / "a.mp4",
        size=(720, 576),
        aspect=Fraction(59, 54),
        frames=3,
        sound="aac" if suffix == ".mkv" else None,
    )
    through(clip.path, tmp_path / f"b{suffix}", OutputSettings(codec=codec))
    with av.open(str(tmp_path / f"b{suffix}")) as source:
        assert source.streams.video[0].sample_aspect_ratio == Fraction(59, 54)
        source.seek(60_000)  # the seek entries still lead somewhere
        assert sum(1 for _ in source.decode(video=0)) > 0
    assert_same_times(clip.path, tmp_path / f"b{suffix}")


def test_display_size_is_exact():
    for width, height, aspect in ((720, 576, Fraction(59, 54)), (720, 480, Fraction(8, 9)), (640, 360, Fraction(2))):
        wide, high = display_size(width, height, aspect)
        assert Fraction(wide, high) == Fraction(width, height) * aspect and high >= height


@pytest.mark.parametrize("letters", range(24))
def test_sample_aspect_is_recorded_beside_a_title_of_any_length(tmp_path, letters):
    """The title stands before the tracks, whose place in the seek head takes a byte, then two."""
    path = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=1, metadata={"title": "a" * letters}).path
    set_display_size(path, 1, 128, 48)
    with av.open(str(path)) as source:
        assert source.streams.video[0].sample_aspect_ratio == 2
        assert source.metadata.get("title", "") == "a" * letters and len(list(source.decode(video=0))) == 1


def test_a_cut_begins_at_zero(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", frames=50, sound="aac", options={"g": "12", "crf": "20"})
    through(clip.path, tmp_path / "b.mp4", start_s=0.8, end_s=1.2)
    after = read_back(tmp_path / "b.mp4")
    assert after.times_s == [Fraction(n, 25) for n in range(10)]
    assert 0 <= after.sound[0][1][0] < Fraction(1, 40)
    assert after.sound[0][1][-1] < Fraction(2, 5)


def test_a_cut_between_two_frames_keeps_picture_and_sound_in_step(tmp_path):
    """AVI counts frames: a picture cannot be moved by less than one."""
    clip = make_clip(tmp_path / "a.avi", codec="ffv1", frames=50, sound="pcm_s16le")
    _, writer = through(clip.path, tmp_path / "b.mov", start_s=0.21)
    before, after = read_back(clip.path), read_back(tmp_path / "b.mov")
    assert after.times_s == [time_s - writer.offset_s for time_s in before.times_s if time_s >= Fraction("0.21")]
    assert after.sound[0][1][0] == min(t for t in before.sound[0][1] if t >= Fraction("0.21")) - writer.offset_s


def test_a_cut_moves_packets_that_avi_counts_whole_by_as_much_as_the_picture(tmp_path):
    """AVI counts MP3 in packets of 1152 samples; a cut lies between two of them."""
    clip = make_clip(tmp_path / "a.avi", codec="ffv1", frames=50, sound="libmp3lame")
    _, writer = through(clip.path, tmp_path / "b.mkv", start_s=0.2)
    before, after = read_back(clip.path), read_back(tmp_path / "b.mkv")
    kept = [t - writer.offset_s for t in before.sound[0][1] if t >= Fraction("0.2")]
    assert writer.offset_s == Fraction(1, 5)
    assert all(abs(a - b) <= Fraction(1, 1000) for a, b in zip(after.sound[0][1], kept, strict=True))


def test_a_cut_whose_ticks_ffmpeg_cannot_count_moves_sound_to_the_nearest_packet(tmp_path):
    """The offset and packets of 1024 samples have no common tick that fits a time base."""
    clip = make_clip(tmp_path / "a.avi", codec="ffv1", frames=50, sound="aac", rate=Fraction(10_000_019, 417_083))
    _, writer = through(clip.path, tmp_path / "b.mkv", start_s=0.3)
    packet_s = Fraction(1024, 48_000)
    assert (writer.offset_s / packet_s).denominator * packet_s.denominator > 2**31
    before, after = read_back(clip.path), read_back(tmp_path / "b.mkv")
    kept = [t - writer.offset_s for t in before.sound[0][1] if t >= Fraction("0.3")]
    assert all(abs(a - b) <= packet_s / 2 for a, b in zip(after.sound[0][1], kept, strict=True))


def test_a_second_picture_that_a_cut_leaves_empty_is_said(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        tracks = [output.add_stream("libx264", rate=25) for _ in range(2)]
        for track in tracks:
            track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        for track, frames in zip(tracks, (25, 1), strict=True):
            for number in range(frames):
                frame = luma_frame(picture(number, 64, 48), "yuv420p")
                frame.pts = number
                output.mux(track.encode(frame))
            output.mux(track.encode(None))
    _, writer = through(tmp_path / "a.mkv", tmp_path / "b.mp4", start_s=0.4)
    assert [entry["output_index"] for entry in writer.stream_map()] == [0, None]
    assert any("video stream 1 is empty" in text for text in writer.warnings)


def test_time_code_goes_along(tmp_path):
    clip = make_clip(tmp_path / "a.mov", timecode="10:00:00:00", frames=25)
    plan, _ = through(clip.path, tmp_path / "b.mov")
    assert ["time code" in left.reason for left in plan.left_out] == [True]
    for name in ("a.mov", "b.mov"):
        with av.open(str(tmp_path / name)) as source:
            assert source.streams.video[0].metadata["timecode"] == "10:00:00:00"


def test_attachments_and_metadata_that_is_not_utf8_go_along(tmp_path):
    clip = make_clip(
        tmp_path / "a.mkv",
        attachment=b"a note",
        metadata={"title": "Stra\udcdfe", "INVENTORY": "12-b"},
        metadata_errors="surrogateescape",
    )
    through(clip.path, tmp_path / "b.mkv")
    with av.open(str(tmp_path / "b.mkv"), metadata_errors="surrogateescape") as source:
        assert [bytes(s.data) for s in source.streams.attachments] == [b"a note"]
        assert source.metadata["title"] == "Stra\udcdfe" and source.metadata["INVENTORY"] == "12-b"
    plan, _ = through(clip.path, tmp_path / "c.mp4")
    assert [(left.kind, ".mkv keeps it" in left.reason) for left in plan.left_out] == [("attachment", True)]
    with av.open(str(tmp_path / "c.mp4"), metadata_errors="surrogateescape") as source:
        assert source.metadata["title"] == "Stra\udcdfe" and source.metadata["INVENTORY"] == "12-b"


def test_a_second_picture_is_copied(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        streams = []
        for _ in range(2):
            video = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            streams.append(video)
        for number in range(10):
            for video in streams:
                frame = luma_frame(picture(number, 64, 48), "yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                output.mux(video.encode(frame))
        for video in streams:
            output.mux(video.encode(None))

    def second(path):
        with av.open(str(path)) as source:
            return [bytes(p) for p in source.demux(source.streams.video[1]) if p.size]

    plan, _ = through(tmp_path / "a.mkv", tmp_path / "b.mkv")
    assert plan.kept == (1,) and second(tmp_path / "b.mkv") == second(tmp_path / "a.mkv")


def test_sound_that_carries_no_times_or_goes_back_is_kept(tmp_path):
    clip = make_clip(tmp_path / "a.mkv", sound="pcm_s16le", frames=25)
    with FilmReader(clip.path) as reader:
        plan = plan_output(reader.info, tmp_path / "b.mov", X264)
        count = 0
        with FilmWriter(tmp_path / "b.mov", reader.info, plan) as writer:
            for item in reader:
                if isinstance(item, SidePacket):
                    count += 1
                    if count == 3:
                        item.packet.pts = item.packet.dts = None
                    elif count == 5:
                        item.packet.pts = item.packet.dts = 1
                    writer.copy(item)
                else:
                    half = np.full((24, 32), 128, np.uint8)
                    writer.write(item.luma, half, half, item.pts_ticks, item.time_base, item.duration_ticks)
    [told] = writer.warnings
    assert "no time, or a wrong one" in told
    assert read_back(tmp_path / "b.mov").sound[0][2] == read_back(clip.path).sound[0][2]


def test_the_names_of_tracks_are_seen_in_every_container(tmp_path):
    make_clip(tmp_path / "a.mkv", sound="aac")
    with av.open(str(tmp_path / "a.mkv")) as source, av.open(str(tmp_path / "b.mkv"), "w") as output:
        tracks = [output.add_stream_from_template(stream) for stream in source.streams]
        tracks[1].metadata["title"] = "Kommentar"
        for packet in source.demux():
            if packet.size:
                packet.stream = tracks[packet.stream_index]
                output.mux(packet)
    for before, after in (("b.mkv", "c.mp4"), ("c.mp4", "d.mov"), ("d.mov", "e.mkv")):
        through(tmp_path / before, tmp_path / after)
        with av.open(str(tmp_path / after)) as made:
            tag = "title" if after == "e.mkv" else "handler_name"
            assert made.streams.audio[0].metadata[tag] == "Kommentar"


def test_the_tags_of_an_ogg_film_lie_at_its_picture(tmp_path):
    with av.open(str(tmp_path / "a.ogg"), "w") as output:
        video = output.add_stream("libvpx", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.metadata.update(title="The Reel", artist="Somebody")
        for number in range(5):
            frame = luma_frame(picture(number, 64, 48), "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    through(tmp_path / "a.ogg", tmp_path / "b.mp4")
    tags = read_back(tmp_path / "b.mp4").metadata
    assert (tags["title"], tags["artist"]) == ("The Reel", "Somebody")


def test_a_film_of_variable_rate_is_as_long_as_it_was(tmp_path):
    """MP4 gives the durations of frames in the order of decoding; one of them may reach past the film's end."""
    pts = [0, 3, 6, 7, 9, 12, 14, 15, 18, 21, 24, 27, 28]
    clip = make_clip(tmp_path / "a.mp4", pts=pts, time_base=Fraction(1, 25), options={"bf": "2", "preset": "fast"})
    through(clip.path, tmp_path / "b.mp4", OutputSettings("h264"))
    assert read_back(tmp_path / "b.mp4").duration_s == pytest.approx(29 / 25, abs=0.002)


def test_chroma_planes_go_where_they_belong(tmp_path):
    clip = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=1, size=(50, 30))
    with FilmReader(clip.path) as reader:
        plan = plan_output(reader.info, tmp_path / "b.mkv", OutputSettings(codec="ffv1", pix_fmt="yuv422p10le"))
        assert (plan.bit_depth, plan.log2_chroma) == (10, (1, 0))
        y = picture(0, 50, 30, 10)
        cb, cr = picture(1, 25, 30, 10), picture(2, 25, 30, 10)
        with FilmWriter(tmp_path / "b.mkv", reader.info, plan) as writer:
            writer.write(y, cb, cr, 0, reader.info.time_base, 40)
            with pytest.raises(ValueError, match="plane 1"):
                writer.write(y, cb[:10], cr, 40, reader.info.time_base, 40)
    with av.open(str(tmp_path / "b.mkv")) as source:
        frame = next(source.decode(video=0))
    expected = av.VideoFrame(50, 30, "yuv422p10le")
    for index, plane in enumerate((y, cb, cr)):
        fill_plane(expected, index, plane)
        seen = np.frombuffer(frame.planes[index], np.uint16).reshape(30, -1)[:, : plane.shape[1]]
        assert np.array_equal(seen, plane)


def test_when_the_block_raises_nothing_more_is_encoded(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", frames=3)
    with FilmReader(clip.path) as reader:
        plan = plan_output(reader.info, tmp_path / "b.mkv", X264)
        with pytest.raises(KeyboardInterrupt), FilmWriter(tmp_path / "b.mkv", reader.info, plan) as writer:
            raise KeyboardInterrupt
    assert writer.frames == 0
    (tmp_path / "b.mkv").unlink()  # closed, so that it can be removed everywhere


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_full_disk_is_one_clear_line(tmp_path, suffix):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    clip = make_clip(tmp_path / "a.mp4", frames=30, size=(320, 240))
    target = tmp_path / f"b{suffix}"
    target.symlink_to(full)
    with FilmReader(clip.path) as reader:
        plan = plan_output(reader.info, target, X264)
        half = np.full((120, 160), 128, np.uint8)
        with (
            pytest.raises(FilmEncodeError, match="cannot be written") as error,
            FilmWriter(target, reader.info, plan) as writer,
        ):
            for item in reader:
                writer.write(item.luma, half, half, item.pts_ticks, item.time_base, item.duration_ticks)
    assert "b." in str(error.value) and "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", frames=2)
    with FilmReader(clip.path) as reader:
        plan = plan_output(reader.info, tmp_path / "none" / "b.mp4", X264)
        with pytest.raises(FilmEncodeError, match=r"none/b\.mp4"):
            FilmWriter(tmp_path / "none" / "b.mp4", reader.info, plan)


@pytest.mark.parametrize(("language", "stays"), [("deu", "ger"), ("fra", "fra"), ("fre", "fra"), ("eng", "eng")])
def test_quicktime_keeps_the_language(tmp_path, language, stays):
    clip = make_clip(tmp_path / "a.mkv", sound="pcm_s16le", languages=(language,), frames=3)
    through(clip.path, tmp_path / "b.mov")
    with av.open(str(tmp_path / "b.mov")) as source:
        assert source.streams.audio[0].language == stays


def test_cover_art_is_kept_or_said_to_be_left_out(tmp_path):
    jpeg = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        output.add_attachment("cover.jpg", "image/jpeg", jpeg)
        for number in range(3):
            frame = luma_frame(picture(number, 64, 48), "yuv420p")
            frame.pts = number
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    for suffix, kept in ((".mkv", True), (".mp4", True), (".mov", False)):
        plan, _ = through(tmp_path / "a.mkv", tmp_path / f"b{suffix}")
        with av.open(str(tmp_path / f"b{suffix}")) as source:
            covers = [s for s in source.streams if s.disposition & av.stream.Disposition.attached_pic]
            assert bool(covers) is kept and bool(plan.left_out) is not kept
    through(tmp_path / "b.mp4", tmp_path / "c.mp4", start_s=0.04, end_s=0.08)
    with av.open(str(tmp_path / "c.mp4")) as source:
        [cover] = [s for s in source.streams if s.disposition & av.stream.Disposition.attached_pic]
        assert bytes(next(source.demux(cover))) == jpeg


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_chapters_keep_their_times(tmp_path, suffix):
    """QuickTime's track of titles begins at zero, and has nothing for a chapter that has none."""
    chapters = [(1000, 2000, "one"), (2000, 2600, None), (2600, 3000, "three")]
    clip = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=75)
    with av.open(str(clip.path)) as source, av.open(str(tmp_path / "b.mkv"), "w") as output:
        video = output.add_stream_from_template(source.streams.video[0], opaque=True)
        output.set_chapters(
            [
                {"id": n, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": t} if t else {}}
                for n, (a, b, t) in enumerate(chapters, 1)
            ]
        )
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                output.mux(packet)
    through(tmp_path / "b.mkv", tmp_path / f"c{suffix}")
    front = [] if suffix == ".mkv" else [(0, 1000, None)]
    made = read_back(tmp_path / f"c{suffix}").chapters
    assert [(a, b, title or None) for a, b, title in made] == [*front, *chapters]


@pytest.mark.parametrize("timecode", [{}, {"timecode": "01:00:00:00"}])
def test_cover_art_in_mp4_is_told_by_the_place_where_it_is_read(tmp_path, timecode):
    jpeg = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    clip = make_clip(tmp_path / "a.mkv", sound="pcm_s16le", frames=25)
    with av.open(str(clip.path)) as source, av.open(str(tmp_path / "b.mkv"), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        output.add_attachment("cover.jpg", "image/jpeg", jpeg)
        output.metadata.update({"DATE_RECORDED": "2006-06-09"} | timecode)
        output.set_chapters(
            [{"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}}]
        )
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    _, writer = through(tmp_path / "b.mkv", tmp_path / "c.mp4")
    assert any("DATE_RECORDED" in text for text in writer.warnings)
    with av.open(str(tmp_path / "c.mp4")) as made:
        for entry in writer.stream_map():
            assert made.streams[entry["output_index"]].type == entry["kind"]
        covers = [s.index for s in made.streams if s.disposition & av.stream.Disposition.attached_pic]
        assert [entry["output_index"] for entry in writer.stream_map() if entry["codec"] == "mjpeg"] == covers
