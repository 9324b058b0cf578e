"""Sound that a container cannot hold: converted sample for sample, in step with the picture."""

from __future__ import annotations

import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from archivecolor.film import FilmReader, FilmWriter, OutputSettings, SidePacket, plan_output
from archivecolor.film.pcm import PcmClock
from archivecolor.film.sound import sound_target
from archivecolor.film.streams import add_converter
from archivecolor.film.written import check_film
from tests.clips import luma_frame, make_clip, picture, read_back, tone
from tests.film.test_writer import through

RATE = 48000


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-20000, 20000, samples).astype(np.int16)


def clip(path: Path, sound: np.ndarray, codec: str, starts: list[int], rate: int = RATE) -> None:
    """A second of picture, and ``sound`` in packets of 1000 samples that begin at ``starts``."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track: Any = output.add_stream(codec, rate=rate)
        track.layout = "mono"
        track.metadata["language"] = "eng"
        for number in range(25):
            frame = luma_frame(picture(number, 64, 48), "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for number, start in enumerate(starts):
            part = sound[number * 1000 : number * 1000 + 1000]
            fmt = track.format.name
            values = part if fmt == "s16" else (part.astype(np.int32) << 16)
            frame = av.AudioFrame.from_ndarray(values[None], format=fmt, layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            output.mux(track.encode(frame))
        output.mux(track.encode(None))


def heard(path: Path) -> tuple[str, str | None, np.ndarray]:
    """Codec, language, and the samples laid out on the film's clock from zero."""
    with av.open(str(path)) as source:
        track = source.streams.audio[0]
        line = np.zeros(4 * RATE, np.float64)
        for frame in source.decode(track):
            values: Any = frame.to_ndarray()
            scale = {"s16": 1, "s32": 1 << 16, "flt": 1 / 32768}[frame.format.name.removesuffix("p")]
            at = round(frame.pts * frame.time_base * track.rate)
            line[at : at + frame.samples] = values[0] / scale
        return track.codec_context.name, track.language, line


@pytest.mark.parametrize(
    ("source", "codec", "target", "expected"),
    [
        ("a.mkv", "pcm_s16le", "b.mp4", "alac"),
        ("a.mov", "pcm_s24le", "b.mp4", "alac"),
        ("a.mkv", "flac", "b.mov", "pcm_s16le"),
    ],
)
def test_every_sample_at_its_own_time(tmp_path, source, codec, target, expected):
    sound = noise(40_000)
    starts = [4800 + 1000 * n for n in range(40)]
    clip(tmp_path / source, sound, codec, starts)
    plan, writer = through(tmp_path / source, tmp_path / target, OutputSettings("h264", preset="ultrafast"))
    assert not plan.kept and len(plan.converted) == 1 and "without loss" in plan.converted[0].in_words
    assert not writer.warnings
    name, language, line = heard(tmp_path / target)
    assert name == expected and language == "eng"
    tick = 48 if target.endswith(".mkv") else 0  # Matroska counts milliseconds
    begins = int(np.flatnonzero(line)[0])
    wanted = int(np.flatnonzero(sound)[0]) + 4800
    assert abs(begins - wanted) <= tick
    start = begins - wanted + 4800
    assert np.array_equal(line[start : start + 40_000], sound)


def test_a_gap_becomes_silence_of_its_length(tmp_path):
    sound = noise(20_000)
    starts = [1000 * n for n in range(10)] + [20_160 + 1000 * n for n in range(10)]
    clip(tmp_path / "a.mkv", sound, "pcm_s16le", starts)
    _, writer = through(tmp_path / "a.mkv", tmp_path / "b.mp4", OutputSettings("h264", preset="ultrafast"))
    _, _, line = heard(tmp_path / "b.mp4")
    assert np.array_equal(line[:10_000], sound[:10_000]) and not line[10_000:20_160].any()
    assert np.array_equal(line[20_160:30_160], sound[10_000:])
    assert any("silence" in text for text in writer.warnings)


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le"])
def test_copied_pcm_stays_in_time_where_packets_have_none(tmp_path, codec):
    sound = noise(20_000)
    gap = 20_160  # a whole number of milliseconds, which is what Matroska counts
    clip(tmp_path / "a.mkv", sound, codec, [base + 1000 * n for base in (0, gap) for n in range(10)])
    plan, writer = through(tmp_path / "a.mkv", tmp_path / "b.mov", OutputSettings("h264", preset="ultrafast"))
    assert plan.kept and not plan.converted
    name, _, line = heard(tmp_path / "b.mov")
    assert name == codec and not line[10_000:gap].any()
    assert np.array_equal(line[:10_000], sound[:10_000])
    assert np.array_equal(line[gap : gap + 10_000], sound[10_000:])
    assert any("silence" in text for text in writer.warnings)
    assert writer.stream_map()[1]["added_bytes"] == (gap - 10_000) * int(codec[5:7]) // 8


def test_copied_pcm_that_overlaps_gives_way(tmp_path):
    clip(tmp_path / "a.mov", noise(1000), "pcm_s16le", [0])
    with av.open(str(tmp_path / "a.mov")) as source:
        clock = PcmClock(source.streams.audio[0], 16)
    made = []
    for begins, value in ((100, 1), (1100, 2), (1900, 3), (1950, 4), (None, 5)):
        packet = av.Packet(np.full(1000 if value != 4 else 100, value, np.int16).tobytes())
        packet.pts, packet.time_base = begins, Fraction(1, RATE)
        made += [(p.pts, p.duration, np.frombuffer(bytes(p), np.int16)[0]) for p in clock.fit(packet)]
    assert made == [(100, 1000, 1), (1100, 1000, 2), (2100, 800, 3), (2900, 100, 4), (3000, 1000, 5)]
    assert clock.added_bytes == -2 * 200
    assert [words in text for words, text in zip(("overlaps", "wrong one"), clock.warnings, strict=True)] == [
        True,
        True,
    ]


def test_sound_of_which_nothing_can_be_read_is_said(tmp_path):
    clip(tmp_path / "a.mkv", noise(5_000), "flac", [1000 * n for n in range(5)])
    path = tmp_path / "a.mkv"
    with FilmReader(path) as reader:
        plan = plan_output(reader.info, tmp_path / "b.mov", OutputSettings())
        with FilmWriter(tmp_path / "b.mov", reader.info, plan) as writer:
            pass  # as of a file whose sound is cut away
    assert any("audio stream 1 is empty" in text for text in writer.warnings)


@pytest.mark.parametrize("wrong_by", [448, -448])
@pytest.mark.parametrize("wrong", [1, 2, 3])
def test_one_wrong_time_is_no_gap_and_no_overlap(tmp_path, wrong, wrong_by):
    sound = noise(20_000)
    clip(tmp_path / "a.mp4", sound, "flac", [1000 * n for n in range(20)])
    made = []
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(io.BytesIO(), "w", format="mov") as output:
        track = source.streams.audio[0]
        target = sound_target(track, "mov")
        _, converter = add_converter(output, track, target, Fraction(0))
        for number, packet in enumerate(packet for packet in source.demux(track) if packet.size):
            packet.pts += wrong_by if number == wrong else 0
            made += [bytes(encoded) for encoded in converter.convert(packet)]
        made += [bytes(encoded) for encoded in converter.finish()]
    assert np.array_equal(np.frombuffer(b"".join(made), np.int16), sound)
    assert not converter.warnings


def test_a_wild_time_is_no_gap(tmp_path):
    sound = noise(20_000)
    clip(tmp_path / "a.mkv", sound, "pcm_s16le", [*range(0, 10_000, 1000), RATE * 100_000])
    for target in ("b.mov", "b.mp4"):
        through(tmp_path / "a.mkv", tmp_path / target, OutputSettings("h264", preset="ultrafast"))
        assert np.array_equal(heard(tmp_path / target)[2][:11_000], sound[:11_000])


def test_webm_gets_opus_in_step(tmp_path):
    silence_then_noise = np.concatenate([np.zeros(24_000, np.int16), noise(16_000)])
    clip(tmp_path / "a.mkv", silence_then_noise, "pcm_s16le", [1000 * n for n in range(40)])
    plan, _ = through(tmp_path / "a.mkv", tmp_path / "b.webm", OutputSettings())
    assert "lossy" in plan.converted[0].in_words
    name, _, line = heard(tmp_path / "b.webm")
    loud = np.flatnonzero(np.abs(line) > 4000)
    assert name == "opus" and abs(int(loud[0]) - 24_000) < 200


@pytest.mark.parametrize("codec", ["libopus", "ac3"])
def test_copied_sound_out_of_milliseconds_lies_to_the_sample(tmp_path, codec):
    click = np.zeros(RATE, np.float32)
    click[24000:24010] = 0.8
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track: Any = output.add_stream(codec, rate=RATE, layout="mono")
        for number in range(25):
            frame = luma_frame(picture(number, 64, 48), "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        whole = av.AudioFrame.from_ndarray(click[None], format="flt", layout="mono")
        whole.sample_rate, whole.pts, whole.time_base = RATE, 0, Fraction(1, RATE)
        fifo = av.AudioFifo()
        fifo.write(av.AudioResampler(track.format, "mono", RATE).resample(whole)[0])
        while (some := fifo.read(track.codec_context.frame_size, partial=True)) is not None:
            output.mux(track.encode(some))
        output.mux(track.encode(None))
    through(tmp_path / "a.mkv", tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as made:
        [sound] = made.streams.audio
        frames = list(made.decode(sound))
    starts = [frame.pts * frame.time_base * RATE for frame in frames]
    assert {b - a - frame.samples for a, b, frame in zip(starts, starts[1:], frames, strict=False)} == {0}
    line = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    if codec == "libopus":  # AC-3 in Matroska does not say how much its encoder put in front
        assert starts[0] == 0 and abs(int(np.abs(line).argmax()) - 24004) < 8


def test_opus_packets_say_how_long_they_are():
    from archivecolor.film.sample_clock import opus_samples

    assert [opus_samples(bytes([toc << 3])) for toc in (3, 12, 16, 31)] == [2880, 480, 120, 960]
    assert opus_samples(bytes([31 << 3 | 1])) == 1920 and opus_samples(bytes([31 << 3 | 3, 3])) == 2880
    assert opus_samples(b"") == 0


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_copied_pcm_whose_channels_are_only_counted(tmp_path, suffix):
    """As Matroska does, which has no place for a layout."""
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track = output.add_stream("pcm_f32le", rate=RATE, layout="stereo")
        frame = luma_frame(picture(0, 64, 48), "yuv420p")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        output.mux([*video.encode(frame), *video.encode(None)])
        values = noise(2000).astype(np.float32) / 32768
        sound = av.AudioFrame.from_ndarray(values[None], format="flt", layout="stereo")
        sound.sample_rate, sound.pts = RATE, 0
        output.mux([*track.encode(sound), *track.encode(None)])
    plan, _ = through(tmp_path / "a.mkv", tmp_path / f"b{suffix}")
    assert plan.kept == (1,)
    assert read_back(tmp_path / f"b{suffix}").sound[0][2] == read_back(tmp_path / "a.mkv").sound[0][2]


def test_channels_in_an_order_of_their_own_do_no_harm(tmp_path):
    """In a process of its own: PyAV frees the memory of such a layout twice."""
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track: Any = output.add_stream("pcm_s16le", rate=RATE)
        track.layout = "5.1"
        frame = luma_frame(picture(0, 64, 48), "yuv420p")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        output.mux([*video.encode(frame), *video.encode(None)])
        sound = av.AudioFrame.from_ndarray(noise(6 * 1000)[None], format="s16", layout="5.1")
        sound.sample_rate, sound.pts = RATE, 0
        output.mux([*track.encode(sound), *track.encode(None)])
    data = bytearray(path.read_bytes())
    at = data.index(b"chan") + 8
    data[at : at + 12] = (122 << 16 | 6).to_bytes(4, "big") + bytes(8)  # L R Ls Rs C LFE
    path.write_bytes(data)
    script = (
        "import sys; from pathlib import Path; from tests.film.test_writer import through\n"
        "plan, _ = through(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(len(plan.kept), len(plan.converted))"
    )
    told = [
        subprocess.run([sys.executable, "-c", script, path, tmp_path / target], capture_output=True, text=True)
        for target in ("b.mp4", "b.mov", "b.mkv")
    ]
    assert [(run.returncode, run.stdout.split()) for run in told] == [(0, ["0", "1"]), (0, ["1", "0"]), (0, ["1", "0"])]


def test_a_track_without_a_packet_moves_no_other(tmp_path):
    clip = make_clip(tmp_path / "a.mkv", sound="aac", sound_tracks=2)
    for target in ("b.mp4", "b.mkv"):
        with FilmReader(clip.path) as reader:
            plan = plan_output(reader.info, tmp_path / target, OutputSettings("h264", preset="ultrafast"))
            with FilmWriter(tmp_path / target, reader.info, plan) as writer:
                for item in reader:
                    if isinstance(item, SidePacket):
                        if item.stream_index == 2:  # the other is cut away
                            writer.copy(item)
                    else:
                        half = np.full((24, 32), 128, np.uint8)
                        writer.write(item.luma, half, half, item.pts_ticks, item.time_base, item.duration_ticks)
        check_film(writer, clip.times_s[-1], tmp_path / target)
        there = {entry["source_index"]: entry["output_index"] for entry in writer.stream_map()}
        assert there == {0: 0, 1: None if target == "b.mp4" else 1, 2: 1 if target == "b.mp4" else 2}


def test_the_last_packet_is_there_where_packets_have_no_length(tmp_path):
    sound_all = noise(10 * 4096)
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track: Any = output.add_stream("alac", rate=RATE)
        track.layout = "mono"
        for number in range(25):
            frame = luma_frame(picture(number, 64, 48), "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for number in range(10):
            part = sound_all[None, number * 4096 :][:, :4096].copy()
            sound = av.AudioFrame.from_ndarray(part, format="s16p", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = RATE, number * 4096, Fraction(1, RATE)
            output.mux(track.encode(sound))
        output.mux(track.encode(None))
    for target in ("b.mp4", "b.mov"):
        plan, _ = through(tmp_path / "a.mkv", tmp_path / target)
        assert plan.kept == (1,)
        assert np.array_equal(heard(tmp_path / target)[2][: 10 * 4096], sound_all)
        assert read_back(tmp_path / target).sound[0][1] == [Fraction(n * 4096, RATE) for n in range(10)]


def test_packets_that_go_back_lie_a_tick_of_the_output_apart(tmp_path):
    with av.open(str(tmp_path / "a.ts"), "w") as output:
        video = output.add_stream("mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track = output.add_stream("mp2", rate=RATE, layout="mono")
        frame = luma_frame(picture(0, 64, 48), "yuv420p")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        output.mux([*video.encode(frame), *video.encode(None)])
        for number in range(20):
            output.mux(track.encode(tone(RATE, number * 1152, 1152, "s16")))
    with FilmReader(tmp_path / "a.ts") as reader:
        plan = plan_output(reader.info, tmp_path / "b.mov", OutputSettings("h264", preset="ultrafast"))
        count = 0
        with FilmWriter(tmp_path / "b.mov", reader.info, plan, offset_s=reader.time_offset_s) as writer:
            for item in reader:
                if isinstance(item, SidePacket):
                    count += 1
                    if count > 10:
                        item.packet.pts = item.packet.dts = item.packet.pts - 3 * 2160
                    writer.copy(item)
                else:
                    half = np.full((24, 32), 128, np.uint8)
                    writer.write(item.luma, half, half, item.pts_ticks, item.time_base, item.duration_ticks)
    assert any("go back in time" in text for text in writer.warnings)
    assert read_back(tmp_path / "b.mov").sound[0][2] == read_back(tmp_path / "a.ts").sound[0][2]
    assert Fraction(writer.stream_map()[1]["moved_s"]) > Fraction(1, 50)


@pytest.mark.parametrize(("codec", "at_most_s"), [("pcm_s16le", Fraction(1, 40)), ("mp2", Fraction(3, 40))])
def test_sound_that_an_edit_list_hides_stays_hidden(tmp_path, codec, at_most_s):
    with av.open(str(tmp_path / "a.mov"), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track = output.add_stream(codec, rate=RATE, layout="mono")
        for number in range(25):
            frame = luma_frame(picture(number, 64, 48), "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for number in range(-20, 20):
            output.mux(track.encode(tone(RATE, number * 1152, 1152, "s16")))
        output.mux(track.encode(None))
    plan, writer = through(tmp_path / "a.mov", tmp_path / "b.mkv", OutputSettings("ffv1"))
    begins_s = read_back(tmp_path / "b.mkv").sound[0][1][0]
    assert plan.kept == (1,) and -at_most_s < begins_s <= 0
    assert writer.stream_map()[1]["hidden_packets"] > 10
