"""Reading: every frame once, at its own time, with the luma that was coded."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from archivecolor.errors import FilmDecodeError
from archivecolor.film import FilmReader, LumaFrame, SidePacket
from tests.clips import luma_frame, make_clip, picture, read_back, tone


def read(path, **options):
    with FilmReader(path, **options) as reader:
        items = list(reader)
    frames = [item for item in items if isinstance(item, LumaFrame)]
    return reader, frames, [item for item in items if isinstance(item, SidePacket)]


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "full"),
    [
        ("libx264", "yuv420p", False), ("libx264", "yuv444p", False), ("libx264", "yuv420p10le", False),
        ("ffv1", "gray", True), ("ffv1", "gray10le", True), ("ffv1", "gray16le", True), ("ffv1", "yuv422p", False),
        ("ffv1", "yuv420p12le", False), ("ffv1", "yuv444p16le", False), ("ffv1", "yuva420p", False),
    ],
)  # fmt: skip
def test_luma_comes_out_bit_for_bit(tmp_path, codec, pix_fmt, full):
    clip = make_clip(tmp_path / "a.mkv", codec=codec, pix_fmt=pix_fmt, full_range=full, frames=5)
    reader, frames, _ = read(clip.path)
    assert len(frames) == 5 and reader.report.frames == 5
    assert reader.info.picture.full_range is full
    for frame, luma in zip(frames, clip.luma, strict=True):
        assert frame.luma.dtype == luma.dtype and np.array_equal(frame.luma, luma)
    assert any("transparency" in text for text in reader.report.warnings) is (pix_fmt == "yuva420p")


@pytest.mark.parametrize("size", [(1, 1), (31, 17), (66, 50)])
def test_any_size(tmp_path, size):
    clip = make_clip(tmp_path / "a.mkv", codec="ffv1", size=size, frames=3)
    _, frames, _ = read(clip.path)
    assert [f.luma.shape for f in frames] == [size[::-1]] * 3
    assert all(np.array_equal(f.luma, luma) for f, luma in zip(frames, clip.luma, strict=True))


def test_times_of_variable_rate_with_b_frames_and_a_late_start(tmp_path):
    pts = [90, 130, 131, 200, 360, 400, 1000, 1040, 1080, 1500, 1540, 1580, 1620, 1660, 1700, 2500]
    options = {"preset": "medium", "bf": "3", "crf": "10"}
    clip = make_clip(tmp_path / "a.mp4", time_base=Fraction(1, 1000), pts=pts, options=options)
    _, frames, _ = read(clip.path)
    assert [frame.time_s for frame in frames] == clip.times_s


def test_side_packets_are_those_of_the_file(tmp_path):
    clip = make_clip(tmp_path / "a.mkv", sound="aac", sound_tracks=2, frames=25)
    _, frames, packets = read(clip.path)
    with av.open(str(clip.path)) as source:
        expected = [(p.stream_index, p.pts, bytes(p)) for p in source.demux(source.streams.audio) if p.size]
    assert [(s.stream_index, s.packet.pts, bytes(s.packet)) for s in packets] == expected
    assert len(frames) == 25


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("start", "end"), [(None, 0.5), (0.6, None), (0.44, 1.2), (1.0, 1.04), (0.43, 0.57)])
def test_a_cut_is_exact_to_the_frame(tmp_path, suffix, start, end):
    pts = [n * 40 + 2000 for n in range(50)]
    options = {"preset": "veryfast", "g": "10", "bf": "2", "crf": "5"}
    clip = make_clip(tmp_path / f"a{suffix}", time_base=Fraction(1, 1000), pts=pts, options=options, sound="aac")
    reader, frames, packets = read(clip.path, start_s=start, end_s=end)
    low = 2 + Fraction(str(start or 0))
    high = 2 + Fraction(str(end)) if end is not None else Fraction(100)
    assert [f.time_s for f in frames] == [t for t in clip.times_s if low <= t < high]
    assert reader.time_offset_s == (low if start else 0)
    heard = [p.packet.pts * p.packet.time_base for p in packets]
    with av.open(str(clip.path)) as source:
        everything = [p.pts * p.time_base for p in source.demux(audio=0) if p.size]
    if start:
        everything = [t for t in everything if t >= low]
    assert heard == [t for t in everything if t < high]


def test_an_undecodable_packet_is_counted_and_the_rest_is_read(tmp_path):
    clip = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=10, options={"g": "1"})
    damaged = tmp_path / "b.mkv"
    with av.open(str(clip.path)) as source, av.open(str(damaged), "w") as output:
        video = output.add_stream_from_template(source.streams.video[0], opaque=True)
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            kept = packet
            if number == 4:
                kept = av.Packet(b"\x80" + bytes(5))
                kept.pts, kept.dts, kept.time_base = packet.pts, packet.dts, packet.time_base
            kept.stream = video
            output.mux(kept)
    reader, frames, _ = read(damaged)
    assert reader.report.undecodable_packets == 1 and reader.report.frames == 9
    assert [f.time_s for f in frames] == [t for n, t in enumerate(clip.times_s) if n != 4]
    assert any("b.mkv" in text for text in reader.report.warnings)


@pytest.mark.parametrize("broken", [-1, -3])
def test_frames_behind_a_broken_packet_at_the_end_are_not_lost(tmp_path, broken):
    # FFV1 decodes in frame threads; an error while they drain must not hide the frames behind it.
    clip = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=12, options={"g": "1"})
    damaged = tmp_path / "b.mkv"
    with av.open(str(clip.path)) as source, av.open(str(damaged), "w") as output:
        video = output.add_stream_from_template(source.streams.video[0], opaque=True)
        packets = [p for p in source.demux(video=0) if p.size]
        for number, packet in enumerate(packets):
            kept = packet
            if number == len(packets) + broken:
                kept = av.Packet(b"\x80" + bytes(5))
                kept.pts, kept.dts, kept.time_base, kept.is_keyframe = packet.pts, packet.dts, packet.time_base, True
            kept.stream = video
            output.mux(kept)
    reader, frames, _ = read(damaged, threads=4)
    assert [f.time_s for f in frames] == [t for n, t in enumerate(clip.times_s) if n != 12 + broken]
    assert reader.report.undecodable_packets == 1


def test_a_truncated_film_gives_what_is_there_and_says_so(tmp_path):
    options = {"preset": "ultrafast", "qp": "10", "g": "5"}
    clip = make_clip(tmp_path / "a.mp4", frames=60, options=options, size=(320, 240))
    with (
        av.open(str(clip.path)) as source,
        av.open(str(tmp_path / "b.mp4"), "w", options={"movflags": "faststart"}) as output,
    ):
        video = output.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                output.mux(packet)
    raw = (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "c.mp4").write_bytes(raw[: len(raw) * 2 // 3])
    reader, frames, _ = read(tmp_path / "c.mp4")
    assert 20 < len(frames) < 50
    assert [f.time_s for f in frames] == clip.times_s[: len(frames)]
    assert any("missing" in text for text in reader.report.warnings)


def test_a_change_of_size_is_scaled_or_refused_in_one_line(tmp_path):
    for name, size in (("a.ts", (64, 48)), ("b.ts", (96, 64))):
        make_clip(tmp_path / name, size=size, frames=30, options={"preset": "ultrafast"})
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    reader, frames, _ = read(tmp_path / "both.ts")
    assert len(frames) == 60 and {frame.luma.shape for frame in frames} == {(48, 64)}
    assert reader.report.resized_frames == 30
    assert any("from 64x48 to 96x64" in text for text in reader.report.warnings)
    assert frames[-1].luma[0].max() == 16 and frames[-1].luma[24].max() > 200  # 96x64 is wider: bars above and below
    with pytest.raises(FilmDecodeError, match="from 64x48 to 96x64") as error:
        read(tmp_path / "both.ts", resize=False)
    assert "\n" not in str(error.value)


def test_a_cut_has_all_its_sound_where_that_lies_later_in_the_file(tmp_path):
    clip = make_clip(tmp_path / "a.mkv", frames=250, sound="pcm_s16le")
    with (
        av.open(str(clip.path)) as source,
        av.open(str(tmp_path / "b.mkv"), "w", container_options={"max_interleave_delta": "1"}) as output,
    ):
        streams = {s.index: output.add_stream_from_template(s) for s in source.streams}
        packets = [packet for packet in source.demux() if packet.size]
        output.start_encoding()
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base + 8 * (p.stream.type == "audio")):
            packet.stream = streams[packet.stream_index]
            output.mux_one(packet)
    _, _, sound = read(tmp_path / "b.mkv", start_s=1, end_s=2)
    times = [packet.packet.pts * packet.packet.time_base for packet in sound]
    assert times[0] < 1.03 and times[-1] > 1.97 and len(sound) == pytest.approx(47, abs=1)


def test_a_transport_stream_has_an_origin(tmp_path):
    pts = [n * 3600 + 90000 * 3600 for n in range(25)]
    make_clip(tmp_path / "a.ts", time_base=Fraction(1, 90000), pts=pts, sound="aac", options={"preset": "ultrafast"})
    reader, frames, packets = read(tmp_path / "a.ts")
    first = min(frames[0].time_s, packets[0].packet.pts * packets[0].packet.time_base)
    assert reader.time_offset_s == first == reader.info.origin_s


def test_a_clock_that_jumps_back_goes_on_without_a_gap(tmp_path):
    for name in ("a.ts", "b.ts"):
        make_clip(tmp_path / name, frames=75, options={"preset": "ultrafast"})
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    reader, frames, _ = read(tmp_path / "both.ts")
    steps = {b.time_s - a.time_s for a, b in pairwise(frames)}
    assert len(frames) == 150 and steps == {Fraction(1, 25)}
    assert any("starts anew" in text for text in reader.report.warnings)


def test_a_clock_that_leaps_by_hours_is_a_new_one(tmp_path):
    make_clip(tmp_path / "a.ts", frames=75, options={"preset": "ultrafast"})
    late = [10 * 3600 * 25 + number for number in range(75)]
    make_clip(tmp_path / "b.ts", pts=late, options={"preset": "ultrafast"})
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    reader, frames, _ = read(tmp_path / "both.ts")
    assert len(frames) == 150 and {b.time_s - a.time_s for a, b in pairwise(frames)} == {Fraction(1, 25)}
    assert any("starts anew" in text for text in reader.report.warnings)


def test_matroska_frames_before_zero_have_their_times(tmp_path):
    """FFmpeg gives them none."""
    with av.open(str(tmp_path / "a.mkv"), "w", container_options={"avoid_negative_ts": "disabled"}) as output:
        video = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for number in range(25):
            frame = luma_frame(picture(number, 64, 48), "yuv420p")
            frame.pts, frame.time_base = number - 8, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    reader, frames, _ = read(tmp_path / "a.mkv")
    assert [frame.time_s for frame in frames] == [Fraction(number - 8, 25) for number in range(25)]
    assert reader.time_offset_s == Fraction(-8, 25)


def test_what_pyav_alone_reads_is_what_the_reader_gives(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", frames=40, options={"bf": "3", "crf": "20"}, size=(128, 96))
    alone = read_back(clip.path)
    _, frames, _ = read(clip.path)
    assert [f.time_s for f in frames] == alone.times_s
    assert all(np.array_equal(f.luma, luma) for f, luma in zip(frames, alone.luma, strict=True))


@pytest.mark.parametrize("name", ["a.avi", "a.mxf"])
def test_times_in_coding_order_are_put_right(tmp_path, name):
    clip = make_clip(tmp_path / name, frames=25, size=(160, 120), options={"bf": "3", "qp": "0", "preset": "veryfast"})
    reader, frames, _ = read(tmp_path / name)
    begin = frames[0].time_s
    assert [frame.time_s - begin for frame in frames] == [Fraction(n, 25) for n in range(25)]
    assert all(np.array_equal(frame.luma, luma) for frame, luma in zip(frames, clip.luma, strict=True))
    assert reader.report.moved_timestamps == 0


def with_wild_time(content: bytes, stream_id: int, number: int, off_s: int) -> bytes:
    """A transport stream of which the PES packet ``number`` of a stream has its times off (ISO/IEC 13818-1)."""
    data, found = bytearray(content), -1
    for at in range(0, len(data), 188):
        pes = at + 4 + (data[at + 4] + 1 if data[at + 3] & 0x20 else 0)
        if not data[at + 1] & 0x40 or data[pes : pes + 4] != bytes([0, 0, 1, stream_id]):
            continue
        found += 1
        if found == number:
            for field in range(pes + 9, pes + 9 + data[pes + 8] // 5 * 5, 5):
                a, b, c, d, e = data[field : field + 5]
                ticks = (a >> 1 & 7) << 30 | b << 22 | c >> 1 << 15 | d << 7 | e >> 1
                ticks = ticks + off_s * 90000 & (1 << 33) - 1
                a, c, e = a & 0xF1 | ticks >> 30 << 1, (ticks >> 15 & 127) << 1 | 1, (ticks & 127) << 1 | 1
                data[field : field + 5] = bytes([a, ticks >> 22 & 255, c, ticks >> 7 & 255, e])
    return bytes(data)


@pytest.mark.parametrize("off_s", [2, 3000, -20])
@pytest.mark.parametrize("stream_id", [0xE0, 0xC0])
def test_a_wild_time_moves_nothing_else(tmp_path, stream_id, off_s):
    make_clip(tmp_path / "a.ts", frames=75, codec="mpeg2video", sound="mp2", options={"bf": "2"})
    whole = (tmp_path / "a.ts").read_bytes()
    wild = with_wild_time(whole, stream_id, 5, off_s)
    (tmp_path / "b.ts").write_bytes(wild)
    _, frames, packets = read(tmp_path / "a.ts")
    reader, same_frames, same_packets = read(tmp_path / "b.ts")
    assert wild != whole and any("wrong time" in text for text in reader.report.warnings)
    assert [f.time_s for f in same_frames] == [f.time_s for f in frames]
    times = [[p.packet.pts * p.packet.time_base for p in side] for side in (packets, same_packets)]
    assert len(times[0]) == len(times[1])
    assert max(abs(a - b) for a, b in zip(*times, strict=True)) <= Fraction(1, 90000)


@pytest.mark.parametrize("sound_s", [2, 2.5])
def test_a_new_clock_takes_the_sound_along(tmp_path, sound_s):
    parts = []
    for number, seconds in enumerate((sound_s, 2)):
        part = tmp_path / f"{number}.ts"
        with av.open(str(part), "w") as output:
            video = output.add_stream("mpeg2video", rate=25, options={"bf": "2"})
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            track = output.add_stream("mp2", rate=48000, layout="mono")
            for count in range(50):  # a frame is 1920 samples long
                frame = luma_frame(picture(count, 64, 48), "yuv420p")
                frame.pts, frame.time_base = count, Fraction(1, 25)
                output.mux(video.encode(frame))
                for packet in range(count * 1920 // 1152, (count + 1) * 1920 // 1152):
                    output.mux(track.encode(tone(48000, packet * 1152, 1152, "s16")))
            for packet in range(50 * 1920 // 1152, round(seconds * 48000 / 1152)):
                output.mux(track.encode(tone(48000, packet * 1152, 1152, "s16")))
            output.mux([*video.encode(None), *track.encode(None)])
        parts.append(part.read_bytes())
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    frames, sound = [], []
    with FilmReader(tmp_path / "a.ts") as reader:
        for item in reader:
            if isinstance(item, LumaFrame):
                frames.append(item.time_s)
            else:
                sound.append(item.packet.pts * item.packet.time_base)
    assert len(frames) == 100 and "starts anew" in reader.report.warnings[0]
    assert sound == sorted(sound) and len(sound) == round(sound_s * 48000 / 1152) + round(2 * 48000 / 1152)
    lead = sound[0] - frames[0]  # of the sound, in either part
    assert sound[round(sound_s * 48000 / 1152)] - frames[50] == lead
    assert frames[50] - frames[49] >= max(Fraction(1, 25), Fraction(sound_s) - 2)
