"""The motion search in processes of its own: what it finds, what it survives, and that it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from archivecolor.colorize import motion_processes
from archivecolor.colorize.engine import Engine
from archivecolor.colorize.motion import Glimpse, Link, find_links, glimpse
from archivecolor.colorize.motion_processes import MotionProcesses
from archivecolor.colorize.pipeline import colorize_film
from archivecolor.config import ColorizeConfig
from archivecolor.errors import FilmDecodeError
from archivecolor.film import OutputSettings
from tests.clips import make_clip
from tests.colorize.moving import make_shots, moved, texture

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

NOTING = """
import sys
from pathlib import Path
from archivecolor.colorize import motion_processes
begin = motion_processes._Process.__init__
def noted(process):
    begin(process)
    with Path(sys.argv[1]).open("a") as file:
        file.write(f"{process._process.pid}\\n")
motion_processes._Process.__init__ = noted
"""
"""Run before the rest of a script, it writes the processes' ids to the file that the script is given."""


def pids(of: MotionProcesses) -> list[int]:
    return [process._process.pid for process in of._processes]


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def batches() -> list[tuple[Glimpse | None, list[Glimpse]]]:
    """As the pipeline has them, with a cut and with frames of another format."""
    frames = [glimpse(moved(texture(n // 10), n % 10, -n % 10), n < 25) for n in range(30)]
    return [(None if start == 0 else frames[start - 1], frames[start : start + 6]) for start in range(0, 30, 6)]


def assert_same(found: Sequence[Link | None], expected: Sequence[Link | None]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.likeness == other.likeness
            for name in ("back", "ahead", "trust_back", "trust_ahead"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def assert_finds_the_same(processes: MotionProcesses) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: processes.find_links(*batch), batches()))
    for links, batch in zip(found, batches(), strict=True):
        assert_same(links, find_links(*batch))


def test_they_find_what_a_thread_finds_and_end() -> None:
    with MotionProcesses(2) as processes:
        started = pids(processes)
        assert_finds_the_same(processes)
    assert len(started) == 2
    assert not any(map(is_running, started))


def test_none_at_all_is_as_good() -> None:
    with MotionProcesses(0) as processes:
        assert_finds_the_same(processes)
        assert not pids(processes)


def test_they_import_no_torch() -> None:
    code = "import sys, archivecolor.colorize.motion_worker; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_they_end_with_an_error_of_the_parent() -> None:
    with pytest.raises(ValueError, match="elsewhere"), MotionProcesses(2) as processes:
        started = pids(processes)
        raise ValueError("elsewhere")
    assert not any(map(is_running, started))


@pytest.mark.parametrize("survivors", [1, 0])
def test_threads_do_the_work_of_processes_that_die(survivors: int, caplog: pytest.LogCaptureFixture) -> None:
    with MotionProcesses(2) as processes:
        assert_finds_the_same(processes)
        for process in processes._processes[survivors:]:
            process._process.kill()
            process._process.wait()
        assert_finds_the_same(processes)
        assert_finds_the_same(processes)
    assert [record.getMessage() for record in caplog.records] == [
        "a process that looks for motion has died; a thread does its work, more slowly"
    ] * (2 - survivors)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signal here")
def test_a_thread_does_the_work_of_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion_processes, "_MOST_SEARCH_S", 0.5)
    with MotionProcesses(1) as processes:
        [pid] = pids(processes)
        os.kill(pid, signal.SIGSTOP)
        assert_finds_the_same(processes)
    assert not is_running(pid)


def test_one_that_dies_in_the_midst_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    half = "import os, pickle, sys; pickle.load(sys.stdin.buffer); os.write(1, pickle.dumps([None] * 6)[:9])"
    monkeypatch.setattr(motion_processes, "_SERVE", half)
    with MotionProcesses(2) as processes:
        assert_finds_the_same(processes)


def test_an_error_in_one_is_the_threads_error() -> None:
    with MotionProcesses(1) as processes, pytest.raises(AttributeError, match="format"):
        processes.find_links(None, [1, 2])  # type: ignore[list-item]


@pytest.mark.parametrize("executable", ["", "/no/such/python", "/bin/false"])
def test_threads_do_the_work_where_none_can_be_started(executable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with MotionProcesses(2) as processes:
        assert_finds_the_same(processes)


@posix_only
def test_the_parents_signals_are_not_for_them() -> None:
    with MotionProcesses(2) as processes:
        for number in (signal.SIGINT, signal.SIGTERM):  # as soon as they are born, and when they are at work
            for pid in pids(processes):
                os.kill(pid, number)
        assert_finds_the_same(processes)
        for number in (signal.SIGINT, signal.SIGTERM):
            for pid in pids(processes):
                os.kill(pid, number)
        assert_finds_the_same(processes)
        assert all(map(is_running, pids(processes)))


@posix_only
@pytest.mark.parametrize("at_work", [False, True])
def test_they_do_not_outlive_a_parent_that_is_killed(at_work: bool, tmp_path: Path) -> None:
    """The script guards nothing by ``if __name__ == "__main__"``, and is run once."""
    noted, script = tmp_path / "pids", tmp_path / "script.py"
    script.write_text(
        f"{NOTING}\nimport time, numpy as np\nfrom archivecolor.colorize.motion import glimpse\n"
        "frames = [glimpse(np.random.default_rng(n).random((96, 96), np.float32) * 100) for n in range(20)]\n"
        "processes = motion_processes.MotionProcesses(2).__enter__()\n"
        f"while {at_work}: processes.find_links(None, frames)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, script, noted]) as parent:
        assert wait_until(lambda: noted.exists() and noted.read_text().count("\n") == 2)
        time.sleep(1 if at_work else 0)
        parent.kill()
    started = [int(pid) for pid in noted.read_text().split()]
    assert len(started) == 2
    assert wait_until(lambda: not any(map(is_running, started)))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Engines on a CPU have processes look for motion, as on a GPU; the ids of these."""
    begin, ids = motion_processes._Process.__init__, []

    def noted(process: motion_processes._Process) -> None:
        begin(process)
        ids.append(process._process.pid)

    monkeypatch.setattr(motion_processes._Process, "__init__", noted)
    monkeypatch.setattr(Engine, "motion_processes", 2)
    return ids


@pytest.mark.parametrize("level", [False, True])
def test_a_whole_film_is_the_same(
    level: bool, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[int]
) -> None:
    source = make_shots(tmp_path / "source.mkv", [31, 3, 20])
    config = ColorizeConfig(device="cpu", weights=str(tiny_weights), render_size_px=64, shot_consistency=level)
    films = []
    for count in (2, 0):
        monkeypatch.setattr(Engine, "motion_processes", count)
        output = tmp_path / f"{count}.mkv"
        colorize_film(source, output, Engine(config), config, OutputSettings(codec="ffv1"))
        films.append(decoded(output))
    assert len(films[0]) == 54 and films[0] == films[1]
    assert len(started) == 2 and not any(map(is_running, started))


def test_an_error_in_a_film_leaves_no_process(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[int]
) -> None:
    source = make_shots(tmp_path / "source.mkv", [40])
    config = ColorizeConfig(device="cpu", weights=str(tiny_weights), render_size_px=64)
    engine, asked = Engine(config), []

    def colours(l_norm: object, wanted: object) -> object:
        asked.append(l_norm)
        if len(asked) > 4:
            raise FilmDecodeError("no colour")
        return Engine.colours(engine, l_norm, wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "colours", colours)
    with pytest.raises(FilmDecodeError, match="no colour"):
        colorize_film(source, tmp_path / "out.mkv", engine, config)
    assert len(started) == 2 and not any(map(is_running, started))


@posix_only
@pytest.mark.parametrize("times", [1, 2])
def test_interrupts_of_the_whole_group_leave_no_process(times: int, tiny_weights: Path, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "film.mp4", size=(320, 240), frames=600, options={"preset": "ultrafast"})
    script, noted, output = tmp_path / "script.py", tmp_path / "pids", tmp_path / "out.mp4"
    script.write_text(
        f"{NOTING}\nfrom archivecolor.cli import main\nfrom archivecolor.colorize.engine import Engine\n"
        "Engine.motion_processes = 2\nmain(sys.argv[2:])\n"
    )
    arguments = ["colorize", source.path, "-o", output, "--weights", tiny_weights, "--device", "cpu"]
    parent = subprocess.Popen(
        [sys.executable, script, noted, *map(str, arguments), "--segment-frames", "32"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert wait_until(lambda: parent.poll() is not None or bool(list(tmp_path.glob(".out.mp4-*.work/*/*.partial"))))
    assert parent.stderr is not None
    os.killpg(parent.pid, signal.SIGINT)
    if times == 2:
        assert "stopping once the segment" in parent.stderr.readline()
        os.killpg(parent.pid, signal.SIGINT)
    _, errors = parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert "Traceback" not in errors and "has died" not in errors
    ids = [int(pid) for pid in noted.read_text().split()]
    assert len(ids) == 2
    assert wait_until(lambda: not any(map(is_running, ids)))


def decoded(path: Path) -> list[list[bytes]]:
    """Planes of a film's frames."""
    with av.open(str(path)) as container:
        return [[bytes(plane) for plane in frame.planes] for frame in container.decode(video=0)]
