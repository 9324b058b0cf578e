"""Segments and resuming: the film that is joined is the film that a single run makes."""

from __future__ import annotations

import errno
import json
import shutil
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from archivecolor.colorize.engine import Engine
from archivecolor.colorize.journal import Journal
from archivecolor.colorize.pipeline import colorize_film
from archivecolor.colorize.progress import NoProgress
from archivecolor.colorize.report import ColorizeReport
from archivecolor.colorize.work import WorkFolder, has_work, work_folder
from archivecolor.config import ColorizeConfig, WorkConfig
from archivecolor.errors import BusyError, FilmEncodeError, StoppedError
from archivecolor.film import FilmSegmentWriter, FilmWriter, OutputSettings
from tests.clips import make_clip, read_back
from tests.colorize.moving import make_shots

SHORT = WorkConfig(segment_frames=40)
ONE_PIECE = WorkConfig(segment_frames=100_000)
FFV1 = OutputSettings("ffv1")


@pytest.fixture(scope="module")
def engine(tiny_weights: Path) -> Engine:
    return Engine(ColorizeConfig(weights=str(tiny_weights), device="cpu", precision="fp32", batch_size=4))


class Spy(NoProgress):
    """Remembers what was said, and asks to stop once ``stop_at`` frames are written."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.said: list[str] = []
        self.stop = threading.Event()
        self.stop_at = stop_at

    def update(self, frames: int, total: int | None, limiting: str) -> None:
        if self.stop_at is not None and frames >= self.stop_at:
            self.stop.set()

    def say(self, text: str) -> None:
        self.said.append(text)


def interrupted(source: Path, output: Path, engine: Engine, stop_at: int, **more: Any) -> Spy:
    """Work that is stopped behind the segment in which ``stop_at`` lies."""
    spy = Spy(stop_at)
    with pytest.raises(StoppedError):
        colorize_film(source, output, engine, progress=spy, stop=spy.stop, **more)
    return spy


def pictures(path: Path) -> list[np.ndarray]:
    """All planes of every frame."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray().copy() for frame in container.decode(video=0)]


def same(a: Path, b: Path) -> bool:
    before, after = pictures(a), pictures(b)
    return len(before) == len(after) and all(map(np.array_equal, before, after))


def journal_of(output: Path) -> Journal:
    return Journal(work_folder(output, SHORT) / "part-0000")


@pytest.mark.parametrize("temporal", [0.9, 0.0])
@pytest.mark.parametrize("lengths", [(150,), (17, 35, 9, 52, 3, 44)])
def test_interruptions_leave_no_trace_in_the_pixels(
    tmp_path: Path, engine: Engine, temporal: float, lengths: tuple[int, ...]
) -> None:
    """One long shot, which is cut in its midst, and shots of all lengths."""
    source = make_shots(tmp_path / "a.mkv", lengths)
    config = ColorizeConfig(temporal=temporal)
    whole, resumed = tmp_path / "whole.mkv", tmp_path / "resumed.mkv"
    colorize_film(source, whole, engine, config, FFV1, work=ONE_PIECE)
    kept = []
    for stop_at in (1, 60, 90):
        interrupted(source, resumed, engine, stop_at, config=config, settings=FFV1, work=SHORT)
        kept.append(sum(segment.frames for segment in journal_of(resumed).read()))
    report = colorize_film(source, resumed, engine, config, FFV1, work=SHORT)
    assert 0 < kept[0] < kept[1] < kept[2] == report.frames_kept < report.frames_written == sum(lengths)
    assert report.frames_read == sum(lengths)
    assert same(whole, resumed)
    assert not has_work(resumed, SHORT)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.mkv", "resumed.mkv", "resumed.mkv.json", "whole.mkv", "whole.mkv.json",
    ]  # fmt: skip


@pytest.mark.parametrize("network_frames", ["auto", "all"])
@pytest.mark.parametrize("flashes", [(), (12, 30, 31)])
def test_work_that_goes_on_deep_in_a_shot_leaves_no_trace(
    tmp_path: Path, engine: Engine, network_frames: Any, flashes: tuple[int, ...]
) -> None:
    """So deep that its beginning is of no consequence any more, and the work goes on from its midst."""
    source = make_shots(tmp_path / "a.mkv", [320], flashes=flashes)
    config = ColorizeConfig(network_frames=network_frames)
    whole, resumed = tmp_path / "whole.mkv", tmp_path / "resumed.mkv"
    colorize_film(source, whole, engine, config, FFV1, work=ONE_PIECE)
    interrupted(source, resumed, engine, 250, config=config, settings=FFV1, work=SHORT)
    restart = journal_of(resumed).read()[-1].restart
    assert restart is not None and restart.number > 0
    report = colorize_film(source, resumed, engine, config, FFV1, work=SHORT)
    assert report.frames_kept and report.frames_written == 320
    assert same(whole, resumed)


def test_a_clock_that_starts_anew_is_no_matter_to_segments(tmp_path: Path, engine: Engine) -> None:
    reel = make_clip(tmp_path / "reel.ts", frames=50, sound="mp2", codec="mpeg2video", options={"bf": "2"}).path
    source = tmp_path / "a.ts"
    source.write_bytes(reel.read_bytes() * 2)
    whole, resumed = tmp_path / "whole.mkv", tmp_path / "resumed.mkv"
    colorize_film(source, whole, engine, ColorizeConfig(), FFV1, work=ONE_PIECE)
    interrupted(source, resumed, engine, 60, config=ColorizeConfig(), settings=FFV1, work=SHORT)
    report = colorize_film(source, resumed, engine, ColorizeConfig(), FFV1, work=SHORT)
    assert report.frames_kept and report.frames_written == 100
    assert any("starts anew" in text for text in report.warnings)
    before, after = read_back(whole), read_back(resumed)
    assert after.times_s == before.times_s == sorted(after.times_s) and after.sound == before.sound
    assert same(whole, resumed)


def test_segments_end_where_shots_end(tmp_path: Path, engine: Engine) -> None:
    source = make_shots(tmp_path / "a.mkv", (17, 35, 9, 52, 3, 44))
    keep = WorkConfig(segment_frames=40, keep_work=True)
    colorize_film(source, tmp_path / "b.mkv", engine, ColorizeConfig(), FFV1, work=keep)
    lengths = [segment.frames for segment in journal_of(tmp_path / "b.mkv").read()]
    # 9 is too short to be a segment, 52 and 44 are too long, 3 lies within what is left of 52
    assert lengths == [17, 35, 40, 21, 3 + 37, 7] or lengths == [17, 35, 40, 21, 40, 7]
    ends = np.cumsum(lengths)
    assert {17, 52, 113} <= set(ends.tolist())


@pytest.mark.parametrize(("suffix", "settings"), [(".mp4", OutputSettings("h264", preset="veryfast")), (".mov", None)])
def test_the_joined_film_has_the_single_runs_times_sound_and_tags(
    tmp_path: Path, engine: Engine, suffix: str, settings: OutputSettings | None
) -> None:
    pts = np.cumsum([40, 1, 39, 90, 40, 33] * 25).tolist()
    source = make_clip(
        tmp_path / "a.mp4",
        time_base=Fraction(1, 1000),
        pts=pts,
        sound="aac",
        sound_tracks=2,
        chapters=[(0, 3000, "one"), (3000, 6000, "two")],
        metadata={"title": "T"},
        options={"bf": "3", "crf": "20"},
    )
    for name, work in (("whole", ONE_PIECE), ("parts", SHORT)):
        colorize_film(source.path, tmp_path / f"{name}{suffix}", engine, ColorizeConfig(), settings, work=work)
    whole, parts = read_back(tmp_path / f"whole{suffix}"), read_back(tmp_path / f"parts{suffix}")
    assert parts.times_s == whole.times_s
    assert len(parts.times_s) == len(pts)
    assert parts.sound == whole.sound
    assert [data for _, _, data in parts.sound] == [data for _, _, data in read_back(source.path).sound]
    assert (parts.metadata, parts.chapters, parts.duration_s) == (whole.metadata, whole.chapters, whole.duration_s)
    error = np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(whole.luma, parts.luma, strict=True)])
    assert error < 2.5  # each segment begins with a key frame; without loss they are the same, see above


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [
        (".mp4", OutputSettings(profile="hevc", preset="ultrafast")),
        (".mkv", OutputSettings(profile="av1", preset="12")),
        (".webm", OutputSettings("vp9")),
        (".mov", OutputSettings("dnxhd")),
        (".mkv", OutputSettings("h264", preset="ultrafast", crf=0)),
    ],
)
def test_every_encoder_can_be_joined(tmp_path: Path, engine: Engine, suffix: str, settings: OutputSettings) -> None:
    source = make_clip(tmp_path / "a.mp4", frames=60, size=(256, 144))
    report = colorize_film(
        source.path, tmp_path / f"b{suffix}", engine, ColorizeConfig(), settings, work=WorkConfig(segment_frames=24)
    )
    after = read_back(tmp_path / f"b{suffix}")
    assert report.frames_written == len(after.times_s) == 60
    tolerance = Fraction(1, 1000) if suffix != ".mp4" else Fraction(0)
    assert all(abs(a - b) <= tolerance for a, b in zip(after.times_s, source.times_s, strict=True))


def test_interlaced_pictures_come_out_the_same(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "a.mkv"
    make_clip(path, codec="ffv1", frames=120, size=(96, 64), options={"flags": "+ildct", "field_order": "tt"})
    for fields in ("auto", "fields"):
        config = ColorizeConfig(deinterlace=fields)  # type: ignore[arg-type]
        whole, resumed = tmp_path / f"{fields}-whole.mkv", tmp_path / f"{fields}.mkv"
        colorize_film(path, whole, engine, config, FFV1, work=ONE_PIECE)
        interrupted(path, resumed, engine, 50, config=config, settings=FFV1, work=SHORT)
        report = colorize_film(path, resumed, engine, config, FFV1, work=SHORT)
        assert report.frames_kept > 0
        assert same(whole, resumed)


def test_a_cut_out_of_the_film_goes_on_too(tmp_path: Path, engine: Engine) -> None:
    source = make_clip(tmp_path / "a.mp4", frames=200, sound="aac")
    config = ColorizeConfig(start_s=1.0, end_s=6.5)
    whole, resumed = tmp_path / "whole.mkv", tmp_path / "resumed.mkv"
    colorize_film(source.path, whole, engine, config, FFV1, work=ONE_PIECE)
    interrupted(source.path, resumed, engine, 50, config=config, settings=FFV1, work=SHORT)
    colorize_film(source.path, resumed, engine, config, FFV1, work=SHORT)
    assert same(whole, resumed)
    assert read_back(resumed).sound == read_back(whole).sound


def test_a_damaged_source_is_read_from_its_beginning_and_counted_once(tmp_path: Path, engine: Engine) -> None:
    source = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=120, options={"level": "3", "slicecrc": "1", "g": "1"})
    damaged = tmp_path / "damaged.mkv"
    with av.open(str(source.path)) as read, av.open(str(damaged), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(read.demux(video=0)):
            if packet.size:
                copy = av.Packet(bytes(packet)[:3] if number in (4, 70) else bytes(packet))
                copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, stream
                copy.is_keyframe = True
                write.mux(copy)
    whole, resumed = tmp_path / "whole.mkv", tmp_path / "resumed.mkv"
    reports: list[ColorizeReport] = [colorize_film(damaged, whole, engine, ColorizeConfig(), FFV1, work=ONE_PIECE)]
    interrupted(damaged, resumed, engine, 50, config=ColorizeConfig(), settings=FFV1, work=SHORT)
    reports.append(colorize_film(damaged, resumed, engine, ColorizeConfig(), FFV1, work=SHORT))
    for report in reports:
        assert (report.frames_written, report.undecodable_packets) == (118, 2)
    assert same(whole, resumed)


def test_image_sequences_go_on(tmp_path: Path, engine: Engine) -> None:
    source = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=100)
    whole, resumed = tmp_path / "whole" / "%03d.png", tmp_path / "resumed" / "%03d.png"
    colorize_film(source.path, whole, engine, ColorizeConfig(), work=ONE_PIECE)
    spy = Spy(30)
    with pytest.raises(StoppedError):
        colorize_film(source.path, resumed, engine, ColorizeConfig(), work=SHORT, progress=spy, stop=spy.stop)
    assert not resumed.parent.exists()
    report = colorize_film(source.path, resumed, engine, ColorizeConfig(), work=SHORT)
    assert report.frames_kept > 0
    names = sorted(path.name for path in resumed.parent.iterdir())
    assert names == [f"{number:03d}.png" for number in range(1, 101)]
    assert all((whole.parent / name).read_bytes() == (resumed.parent / name).read_bytes() for name in names)


def test_a_line_that_was_cut_short_and_a_segment_that_was_changed_are_made_again(
    tmp_path: Path, engine: Engine
) -> None:
    source, output = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=150).path, tmp_path / "b.mkv"
    interrupted(source, output, engine, 90, config=ColorizeConfig(), settings=FFV1, work=SHORT)
    journal = journal_of(output)
    before = journal.read()
    assert len(before) >= 2
    with journal.path.open("ab") as stream:
        stream.write(before[-1].to_line()[:60])
    last = journal.folder / before[-1].name
    last.write_bytes(last.read_bytes()[:-1] + b"?")
    spy = Spy()
    report = colorize_film(source, output, engine, ColorizeConfig(), FFV1, work=SHORT, progress=spy)
    assert report.frames_kept == sum(segment.frames for segment in before[:-1])
    assert report.frames_written == 150
    colorize_film(source, tmp_path / "whole.mkv", engine, ColorizeConfig(), FFV1, work=ONE_PIECE)
    assert same(tmp_path / "whole.mkv", output)


@pytest.mark.parametrize("other", [ColorizeConfig(temporal=0.5), ColorizeConfig(precision="fp32")])
def test_what_was_begun_with_something_else_starts_afresh_and_says_so(
    tmp_path: Path, engine: Engine, other: ColorizeConfig
) -> None:
    source, output = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=100).path, tmp_path / "b.mkv"
    interrupted(source, output, engine, 30, config=ColorizeConfig(), settings=FFV1, work=SHORT)
    spy = interrupted(source, output, engine, 30, config=other, settings=FFV1, work=SHORT)
    assert any("(settings changed); starting afresh" in text for text in spy.said)
    make_clip(source, codec="ffv1", frames=90)
    spy = Spy()
    report = colorize_film(source, output, engine, other, FFV1, work=SHORT, progress=spy)
    assert any("(source changed); starting afresh" in text for text in spy.said)
    assert (report.frames_kept, report.frames_written) == (0, 90)


def test_a_work_folder_elsewhere_that_is_kept(tmp_path: Path, engine: Engine) -> None:
    source, output = make_clip(tmp_path / "a.mp4", frames=30).path, tmp_path / "b.mp4"
    work = WorkConfig(work_dir=str(tmp_path / "work"), keep_work=True, segment_frames=10)
    colorize_film(source, output, engine, ColorizeConfig(), work=work)
    [folder] = (tmp_path / "work").iterdir()
    assert len(list(folder.glob("part-0000/*.segment"))) == 3
    assert not has_work(output, work)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that not even root can write to")
def test_a_place_that_cannot_be_written_to_is_found_before_the_work(tmp_path: Path, engine: Engine) -> None:
    source = make_clip(tmp_path / "a.mp4", frames=10).path
    work = WorkConfig(work_dir=str(tmp_path / "work"))
    with pytest.raises(FilmEncodeError, match=r"/proc/b\.mp4: cannot be written there .* choose another place"):
        colorize_film(source, Path("/proc/b.mp4"), engine, ColorizeConfig(), work=work)
    assert not (tmp_path / "work").exists()


def test_the_folder_of_an_output_is_made(tmp_path: Path, engine: Engine) -> None:
    source = make_clip(tmp_path / "a.mp4", frames=10).path
    work = WorkConfig(work_dir=str(tmp_path / "work"))
    report = colorize_film(source, tmp_path / "new" / "er" / "b.mp4", engine, ColorizeConfig(), work=work)
    assert report.frames_written == 10 and report.output.is_file()


def test_two_runs_on_one_output_do_not_meet(tmp_path: Path, engine: Engine) -> None:
    source, output = make_clip(tmp_path / "a.mp4", frames=10).path, tmp_path / "b.mp4"
    with WorkFolder(output, SHORT), pytest.raises(BusyError, match="another run"):
        colorize_film(source, output, engine, ColorizeConfig(), work=SHORT)
    colorize_film(source, output, engine, ColorizeConfig(), work=SHORT)


class FullDisk:
    """Writing of segments fails for want of space from the 5th packet on, until ``free`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import archivecolor.film.segments as segments

        self.free = False
        self.tries = 0
        self.writes = 0
        write_at = segments.write_at

        def limited(descriptor: int, offset: int, data: bytes) -> None:
            self.writes += 1
            if self.writes > 5 and not self.free:
                self.tries += 1
                write_at(descriptor, offset, data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            write_at(descriptor, offset, data)

        monkeypatch.setattr(segments, "write_at", limited)


def test_a_full_disk_pauses_the_work_and_then_it_goes_on(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=60).path, tmp_path / "b.mkv"
    disk = FullDisk(monkeypatch)
    spy = Spy()

    def someone_makes_room(text: str) -> None:
        Spy.say(spy, text)
        disk.free = True

    monkeypatch.setattr(spy, "say", someone_makes_room)
    report = colorize_film(source, output, engine, ColorizeConfig(), FFV1, work=SHORT, progress=spy)
    assert disk.tries == 1
    assert [("is full" in text, "goes on" in text) for text in spy.said] == [(True, True), (False, True)]
    assert report.frames_written == len(pictures(output)) == 60


def test_a_disk_that_is_full_from_the_start_pauses_the_work(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=10).path, tmp_path / "b.mkv"
    spy = Spy()
    write_text = Path.write_text

    def limited(path: Path, *arguments: Any, **more: Any) -> int:
        if path.name == "plan.new" and not spy.said:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(path, *arguments, **more)

    monkeypatch.setattr(Path, "write_text", limited)
    report = colorize_film(source, output, engine, ColorizeConfig(), FFV1, work=SHORT, progress=spy)
    assert report.frames_written == 10
    assert [("is full" in text, "goes on" in text) for text in spy.said] == [(True, True), (False, True)]


def test_a_full_disk_is_an_error_where_one_does_not_want_to_wait(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=60).path, tmp_path / "b.mkv"
    FullDisk(monkeypatch)
    with pytest.raises(FilmEncodeError, match="the disk is full; free some space and run again"):
        colorize_film(source, output, engine, ColorizeConfig(), FFV1, work=WorkConfig(wait_for_space_s=0))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


def test_a_full_disk_can_be_stopped(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=60).path, tmp_path / "b.mkv"
    FullDisk(monkeypatch)
    spy = Spy()
    monkeypatch.setattr(spy, "say", lambda text: spy.stop.set())
    with pytest.raises(StoppedError, match="stopped while the disk was full"):
        colorize_film(source, output, engine, ColorizeConfig(), FFV1, work=SHORT, progress=spy, stop=spy.stop)


def test_a_segment_that_cannot_be_read_back_is_an_error(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = make_clip(tmp_path / "a.mp4", frames=60).path, tmp_path / "b.mp4"
    finish = FilmSegmentWriter.finish

    def on_a_bad_disk(self: FilmSegmentWriter) -> Any:
        close = self._file.close

        def damage() -> None:
            close()
            content = bytearray(self._file.path.read_bytes())
            content[len(content) // 2] ^= 255
            self._file.path.write_bytes(content)

        self._file.close = damage  # type: ignore[method-assign]
        return finish(self)

    monkeypatch.setattr(FilmSegmentWriter, "finish", on_a_bad_disk)
    with pytest.raises(FilmEncodeError, match=r"is the disk sound|does not decode"):
        colorize_film(source, output, engine, ColorizeConfig(), work=SHORT)
    assert not output.exists()


@pytest.mark.parametrize(("lost", "words"), [("picture", "59 frames instead of 60"), ("sound", "packets of stream 1")])
def test_a_film_that_was_not_written_whole_gets_no_name(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, lost: str, words: str
) -> None:
    source, output = make_clip(tmp_path / "a.mp4", frames=60, sound="aac").path, tmp_path / "b.mp4"
    make_clip(output, frames=3)
    before = output.read_bytes()
    mux = FilmWriter._mux if lost == "picture" else FilmWriter._mux_all
    calls: list[int] = []

    def losing_one(self: FilmWriter, packets: Any) -> None:
        calls.append(1)
        if len(calls) != 20:
            mux(self, packets)  # type: ignore[operator]
        elif lost == "sound":
            self.packets[1] += 1
            self.bytes[1] += packets[0].size

    with monkeypatch.context() as patch:
        patch.setattr(FilmWriter, mux.__name__, losing_one)
        with pytest.raises(FilmEncodeError, match=words):
            colorize_film(source, output, engine, ColorizeConfig(), work=SHORT)
    assert output.read_bytes() == before and not list(tmp_path.glob(".*.partial"))
    assert colorize_film(source, output, engine, ColorizeConfig(), work=SHORT).frames_kept == 60


def test_the_plan_says_what_the_work_is_of(tmp_path: Path, engine: Engine) -> None:
    source, output = make_clip(tmp_path / "a.mp4", frames=60).path, tmp_path / "b.mp4"
    interrupted(source, output, engine, 1, config=ColorizeConfig(), work=SHORT)
    plan = json.loads((work_folder(output, SHORT) / "plan.json").read_text())
    assert plan["output"] == str(output) and plan["weights"] == engine.weights_sha256
    shutil.rmtree(work_folder(output, SHORT))
    colorize_film(source, output, engine, ColorizeConfig(), work=SHORT)
