"""A shelf of films into a folder: the catalogue, and who does what when."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from archivecolor.cli import main
from archivecolor.colorize import batch
from archivecolor.colorize.catalogue import Catalogue, Entry
from archivecolor.colorize.space import Space
from archivecolor.colorize.work import WorkFolder
from archivecolor.config import WorkConfig
from archivecolor.errors import ArchiveColorError, DeviceError, FilmDecodeError, FilmEncodeError, FilmOpenError
from tests.clips import make_clip, read_back
from tests.conftest import Start

pytestmark = pytest.mark.usefixtures("use_tiny_weights")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["colorize", *map(str, arguments)])


def status(folder: Path) -> dict[str, Any]:
    result = CliRunner().invoke(main, ["status", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def entry_of(folder: Path, output: str) -> dict[str, Any]:
    [entry] = [entry for entry in status(folder)["films"] if entry["output"] == output]
    return dict(entry)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Three films, one of them no film."""
    folder = tmp_path / "reels"
    (folder / "box").mkdir(parents=True)
    make_clip(folder / "one.mp4", frames=6)
    make_clip(folder / "box" / "two.mp4", frames=7)
    (folder / "box" / "bad.mp4").write_text("not a film")
    return folder


def test_plain_sqlite_reads_what_became_of_each_film(tmp_path: Path, shelf: Path) -> None:
    out = tmp_path / "out"
    result = run(shelf, "-o", out)
    assert result.exit_code == 1 and "2 coloured, 0 skipped, 1 failed" in result.stderr
    assert result.stderr.count("error: ") == 1
    with sqlite3.connect(out / "catalogue.sqlite3") as database:
        rows = database.execute("select output, state, attempts, frames, error from films order by output").fetchall()
        [(sha256,)] = database.execute("select source_sha256 from films where output = 'one.mp4'").fetchall()
    assert [row[:4] for row in rows] == [
        ("box/bad.mp4", "failed", 1, None),  # another try would not mend it
        ("box/two.mp4", "coloured", 1, 7),
        ("one.mp4", "coloured", 1, 6),
    ]
    assert "bad.mp4" in rows[0][4] and rows[1][4] is None
    assert sha256 == json.loads((out / "one.mp4.json").read_text())["source"]["sha256"]

    shown = CliRunner().invoke(main, ["status", str(out)])
    assert shown.exit_code == 0 and "2 coloured, 0 waiting, 1 failed" in shown.stderr
    assert "box/bad.mp4" in shown.stdout and "failed" in shown.stdout


def test_what_is_done_is_not_done_again_and_what_failed_is(tmp_path: Path, shelf: Path) -> None:
    out = tmp_path / "out"
    run(shelf, "-o", out)
    made = (out / "one.mp4").stat().st_mtime_ns
    (shelf / "box" / "bad.mp4").unlink()
    make_clip(shelf / "box" / "bad.mp4", frames=5)
    result = run(shelf, "-o", out)
    assert result.exit_code == 0 and "1 coloured, 2 skipped, 0 failed" in result.stderr
    assert (out / "one.mp4").stat().st_mtime_ns == made
    assert entry_of(out, "box/bad.mp4")["state"] == "coloured"
    assert entry_of(out, "box/bad.mp4")["attempts"] == 2
    assert entry_of(out, "box/bad.mp4")["error"] is None


@pytest.mark.parametrize(
    ("error", "cause", "tries"),
    [
        (FilmOpenError("not a film"), None, 1),
        (FilmOpenError("cannot be read"), OSError(errno.EIO, "Input/output error"), 2),
        (FilmDecodeError("not enough memory"), MemoryError(), 2),
        (DeviceError("no memory for a single frame"), None, 2),
        (FilmEncodeError("cannot be written"), OSError(errno.EIO, "Input/output error"), 2),
    ],
)
def test_what_may_pass_is_tried_again_in_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: ArchiveColorError, cause: Exception | None, tries: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error from cause

    monkeypatch.setattr(batch, "colorize_film", fail)
    (tmp_path / "reels").mkdir()
    make_clip(tmp_path / "reels" / "one.mp4", frames=3)
    result = run(tmp_path / "reels", "-o", tmp_path / "out")
    assert result.exit_code == 1 and result.stderr.count("error: ") == 1
    assert entry_of(tmp_path / "out", "one.mp4")["attempts"] == tries


def test_sources_that_were_moved_or_renamed_are_known_by_their_content(tmp_path: Path, shelf: Path) -> None:
    out = tmp_path / "out"
    (shelf / "box" / "bad.mp4").unlink()
    run(shelf, "-o", out)
    (shelf / "one.mp4").rename(shelf / "box" / "first.mp4")
    shutil.copy2(shelf / "box" / "two.mp4", shelf / "copy.mp4")  # another film of the same content: both are there
    results = json.loads(run(shelf, "-o", out, "--json").stdout)["results"]
    became = {Path(entry["source"]).name: (entry["state"], Path(entry["output"]).name) for entry in results}
    assert became == {
        "first.mp4": ("skipped", "one.mp4"),
        "two.mp4": ("skipped", "two.mp4"),
        "copy.mp4": ("coloured", "copy.mp4"),
    }
    assert not (out / "box" / "first.mp4").exists() and (out / "copy.mp4").exists()
    assert entry_of(out, "one.mp4")["source"] == str(shelf / "box" / "first.mp4")
    assert "0 coloured, 3 skipped, 0 failed" in run(shelf, "-o", out).stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_source_that_was_renamed_in_mid_film_goes_on(tmp_path: Path, start_colorize: Start) -> None:
    shelf, out = tmp_path / "reels", tmp_path / "out"
    shelf.mkdir()
    make_clip(shelf / "one.mp4", frames=150, size=(96, 64))
    process = start_colorize(shelf, "-o", out, "--segment-frames", 16)
    deadline = time.monotonic() + 120
    while not list(out.glob(".*.work/part-0000/journal.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    (shelf / "one.mp4").rename(shelf / "reel 1.mp4")
    with Catalogue(out) as catalogue:
        catalogue.put(Entry("never begun.mp4", str(shelf / "never begun.mp4")))
    [result] = json.loads(run(shelf, "-o", out, "--json").stdout)["results"]
    assert result["state"] == "coloured" and 0 < result["frames_kept"] < result["frames_written"] == 150
    [entry] = status(out)["films"]
    assert (entry["output"], entry["source"]) == ("reel 1.mp4", str(shelf / "reel 1.mp4"))
    assert sorted(path.name for path in out.iterdir()) == ["catalogue.sqlite3", "reel 1.mp4", "reel 1.mp4.json"]


def test_a_source_or_output_that_was_changed_is_not_taken_for_done(tmp_path: Path, shelf: Path) -> None:
    out = tmp_path / "out"
    (shelf / "box" / "bad.mp4").unlink()
    run(shelf, "-o", out)
    (out / "one.mp4").write_bytes((out / "one.mp4").read_bytes()[:900])
    result = run(shelf, "-o", out)
    assert result.exit_code == 1 or "1 coloured, 1 skipped" in result.stderr
    (out / "box" / "two.mp4").unlink()
    assert "coloured" in run(shelf, "-o", out).stderr
    assert len(read_back(out / "box" / "two.mp4").times_s) == 7


def test_a_source_that_was_replaced_is_not_passed_over_for_its_length(tmp_path: Path, shelf: Path) -> None:
    out = tmp_path / "out"
    (shelf / "box" / "bad.mp4").unlink()
    run(shelf, "-o", out)
    make_clip(shelf / "one.mp4", frames=6, options={"crf": "40"})
    result = run(shelf, "-o", out)
    assert result.exit_code == 1 and "one.mp4: was made of another source" in result.stderr
    assert "0 coloured, 1 skipped, 1 failed" in result.stderr
    assert run(shelf, "-o", out, "--overwrite").exit_code == 0
    assert "0 coloured, 2 skipped, 0 failed" in run(shelf, "-o", out).stderr


def test_a_source_that_goes_away_meanwhile_stops_nothing(tmp_path: Path, shelf: Path) -> None:
    (shelf / "box" / "bad.mp4").unlink()
    assert run(shelf, "-o", tmp_path / "out").exit_code == 0
    with Catalogue(tmp_path / "out") as catalogue:
        entry = catalogue.find("one.mp4")
    assert entry is not None and entry.has_source(shelf / "one.mp4")
    (shelf / "one.mp4").unlink()
    assert not entry.has_source(shelf / "one.mp4")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    shelf, out = tmp_path / "reels", tmp_path / "out"
    shelf.mkdir()
    name = os.fsdecode(b"r\xf6hre.mp4")
    make_clip(tmp_path / "clip.mp4", frames=5).path.rename(shelf / name)
    assert "1 coloured, 0 skipped" in run(shelf, "-o", out).stderr
    assert "0 coloured, 1 skipped" in run(shelf, "-o", out).stderr
    assert entry_of(out, name)["state"] == "coloured"


def test_a_full_disk_pauses_the_catalogue_too(tmp_path: Path) -> None:
    """SQLite is kept from growing the file, as by a full disk; then there is space again."""
    said: list[str] = []
    space = Space(tmp_path, said.append, threading.Event(), 60)
    with Catalogue(tmp_path) as catalogue:
        catalogue._database.execute("pragma max_page_count = 4")
        tries: list[int] = []

        def enter() -> None:
            if tries:
                catalogue._database.execute("pragma max_page_count = 1000000")
            tries.append(1)
            with catalogue.together():
                for number in range(500):
                    catalogue.put(Entry(f"{number}.mp4", "/films/" + "x" * 200))

        space.patiently(enter)
        assert len(tries) == 2 and len(catalogue.entries()) == 500
    assert len(said) == 2 and "full" in said[0] and "again" in said[1]


def test_include_and_exclude(tmp_path: Path, shelf: Path) -> None:
    make_clip(shelf / "three.mkv", codec="ffv1", frames=3)
    result = run(shelf, "-o", tmp_path / "out", "--include", "*.mp4", "--exclude", "box/b*")
    assert result.exit_code == 0
    assert [entry["output"] for entry in status(tmp_path / "out")["films"]] == ["box/two.mp4", "one.mp4"]
    result = run(shelf, "-o", tmp_path / "out", "--include", "*.xyz")
    assert result.exit_code == 1 and "that are asked for" in result.stderr


def test_status_of_what_is_no_output_of_ours(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["status", str(tmp_path)])
    assert result.exit_code == 1 and "catalogue.sqlite3" in result.stderr
    (tmp_path / "catalogue.sqlite3").write_text("This is no database at all." * 100)
    result = CliRunner().invoke(main, ["status", str(tmp_path)])
    assert result.exit_code == 1 and result.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be copied there")
def test_status_after_a_kill_in_the_midst_of_a_change(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    with Catalogue(tmp_path) as catalogue:
        with catalogue.together():
            for number in range(500):
                catalogue.put(Entry(f"{number}.mp4", "/films/" + "x" * 300))
        catalogue._database.execute("pragma cache_size = 5")
        with catalogue.together():
            for number in range(500):
                catalogue.change(f"{number}.mp4", error="y" * 300)
            for file in tmp_path.glob("catalogue.*"):
                shutil.copy(file, killed)
    assert len(list(killed.iterdir())) == 2
    films = status(killed)["films"]
    assert len(films) == 500 and not any(film["error"] for film in films)


def test_work_whose_process_is_no_more_is_interrupted(tmp_path: Path) -> None:
    config = WorkConfig()
    with Catalogue(tmp_path) as catalogue:
        for name in ("a.mp4", "b.mp4"):
            work = WorkFolder(tmp_path / name, config).path
            catalogue.put(Entry(name, f"/films/{name}", state="working", attempts=1, work=str(work)))
    with WorkFolder(tmp_path / "a.mp4", config):
        states = {entry["output"]: entry["state"] for entry in status(tmp_path)["films"]}
    assert states == {"a.mp4": "working", "b.mp4": "interrupted"}


def test_two_worker_processes_share_the_work(tmp_path: Path, shelf: Path) -> None:
    make_clip(shelf / "three.mp4", frames=8)
    result = run(shelf, "-o", tmp_path / "out", "--jobs", 2, "--json")
    assert result.exit_code == 1
    assert sorted(entry["state"] for entry in json.loads(result.stdout)["results"]) == ["coloured"] * 3 + ["failed"]
    assert len(read_back(tmp_path / "out" / "three.mp4").times_s) == 8


def test_two_runs_on_one_folder_do_each_film_once(tmp_path: Path, start_colorize: Start) -> None:
    shelf, out = tmp_path / "reels", tmp_path / "out"
    shelf.mkdir()
    for number in range(4):
        make_clip(shelf / f"{number}.mp4", frames=60 + number, size=(128, 96))
    runs = [start_colorize(shelf, "-o", out, "--json") for _ in range(2)]
    results = []
    for process in runs:
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        results += json.loads(stdout)["results"]
    coloured = sorted(Path(entry["source"]).name for entry in results if entry["state"] == "coloured")
    assert coloured == [f"{number}.mp4" for number in range(4)]
    assert [entry["attempts"] for entry in status(out)["films"]] == [1] * 4


def test_what_another_run_has_finished_just_now_was_no_attempt(tmp_path: Path, shelf: Path) -> None:
    out = tmp_path / "out"
    run(shelf, "-o", out)
    with Catalogue(out) as catalogue:
        done = next(entry for entry in catalogue.entries() if entry.state == "coloured")
        catalogue.change(done.output, state="working")  # its output is there, and nobody has its lock
    run(shelf, "-o", out)
    with Catalogue(out) as catalogue:
        again = catalogue.find(done.output)
    assert again is not None and (again.state, again.attempts) == ("coloured", done.attempts)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_watched_folder(tmp_path: Path, start_colorize: Start) -> None:
    shelf, out = tmp_path / "hot", tmp_path / "out"
    shelf.mkdir()
    long_ago = time.time() - 60
    process = start_colorize(shelf, "-o", out, "--watch", "--json")
    try:
        for number, changed in enumerate((long_ago, time.time() + 86400)):  # a clock may be wrong
            clip = make_clip(tmp_path / f"{number}.mp4", frames=5).path
            os.utime(clip, (changed, changed))
            clip.rename(shelf / clip.name)
            deadline = time.monotonic() + 120
            while not (out / f"{clip.name}.json").exists() and time.monotonic() < deadline:
                time.sleep(0.1)
        (shelf / "growing.mp4").write_bytes(b"still being copied")
        time.sleep(3)
    finally:
        process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert [entry["state"] for entry in json.loads(stdout)["results"]] == ["coloured", "coloured"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names differ there by more than case")
def test_watching_outlives_names_that_meet(tmp_path: Path, start_colorize: Start) -> None:
    shelf, out = tmp_path / "hot", tmp_path / "out"
    shelf.mkdir()
    process = start_colorize(shelf, "-o", out, "--watch", "--json")
    try:
        deadline = time.monotonic() + 120
        while not (out / "catalogue.sqlite3").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        clip = make_clip(shelf / "one.mp4", frames=5).path
        twin = shutil.copy(clip, shelf / "ONE.mp4")
        time.sleep(3)
        twin.unlink()
        while not (out / "one.mp4.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert stderr.count("would both become") == 1
    assert [entry["state"] for entry in json.loads(stdout)["results"]] == ["coloured"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_kills_at_random_moments_leave_no_trace(tmp_path: Path) -> None:
    """A few of the many that ``benchmarks/kill_and_resume.py`` is for."""
    film = make_clip(tmp_path / "film.mp4", frames=160, size=(96, 64), sound="aac", options={"bf": "2"}).path
    script = Path(__file__).parents[2] / "benchmarks" / "kill_and_resume.py"
    command = [sys.executable, str(script), "--kills", "3", "--film", str(film), "--segment-frames", "16"]
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "3 kills: every film whole" in done.stdout
