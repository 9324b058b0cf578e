"""One film by several workers: parts that meet, workers that die, nodes that are lost."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from archivecolor.colorize import distributed
from archivecolor.colorize.batch import Job
from archivecolor.colorize.crew import Processes, Task
from archivecolor.colorize.distributed import PartsCraft, ProcessCrew
from archivecolor.colorize.engine import Engine
from archivecolor.colorize.journal import Journal
from archivecolor.colorize.part_task import PartTask, work_on_part
from archivecolor.colorize.pipeline import colorize_film
from archivecolor.colorize.progress import NoProgress, never
from archivecolor.colorize.work import has_work, work_folder
from archivecolor.colorize.worker_process import stopping
from archivecolor.config import ColorizeConfig, WorkConfig
from archivecolor.errors import ArchiveColorError, StoppedError
from archivecolor.film import OutputSettings
from tests.clips import make_clip, read_back
from tests.colorize.moving import make_shots

pytestmark = pytest.mark.usefixtures("use_tiny_weights")

SHORT = WorkConfig(segment_frames=16)
CONFIG = ColorizeConfig(device="cpu", precision="fp32", batch_size=4)
FFV1 = OutputSettings("ffv1")


class Threads:
    """A crew of threads."""

    def __init__(self, workers: int = 2) -> None:
        self.workers = workers
        self.parts: list[int] = []
        self._pool = ThreadPoolExecutor(1)

    def colour(self, task: PartTask) -> Future[ArchiveColorError | None]:
        self.parts.append(task.part.number)
        return self._pool.submit(work_on_part, task, "cpu")


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray().copy() for frame in container.decode(video=0)]


def make(craft: PartsCraft, source: Path, output: Path, stop: threading.Event | None = None) -> None:
    craft.film(source, output, CONFIG, FFV1, work=SHORT, progress=NoProgress(), stop=stop or never())


@pytest.mark.parametrize("lengths", [(15,) * 14, (200,)])
def test_parts_meet_and_give_the_single_runs_film(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    """At shots the colours are the same bit for bit; one long shot is cut in its midst, where they may differ."""
    source = make_shots(tmp_path / "a.mkv", lengths)
    colorize_film(source, tmp_path / "whole.mkv", Engine(CONFIG), CONFIG, FFV1)
    crew = Threads()
    make(PartsCraft(crew, CONFIG), source, tmp_path / "parts.mkv")
    assert len(crew.parts) >= 4
    whole, parts = pictures(tmp_path / "whole.mkv"), pictures(tmp_path / "parts.mkv")
    assert len(whole) == len(parts) == sum(lengths)
    differences = [int(np.abs(a.astype(int) - b).max()) for a, b in zip(whole, parts, strict=True)]
    assert np.mean(differences) < 3 if len(lengths) == 1 else max(differences) == 0
    assert read_back(tmp_path / "whole.mkv").times_s == read_back(tmp_path / "parts.mkv").times_s


def test_a_film_that_ends_early_leaves_an_empty_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are planned by an estimate; here a film's last part begins behind its last frame."""
    source, output = make_shots(tmp_path / "a.mkv", (26, 22)), tmp_path / "b.mkv"
    monkeypatch.setattr(distributed, "frames_expected", lambda *_: 64)
    work = WorkConfig(segment_frames=4, keep_work=True)
    craft = PartsCraft(Threads(8), CONFIG)
    craft.film(source, output, CONFIG, FFV1, work=work, progress=NoProgress(), stop=never())
    assert len(pictures(output)) == 48
    journals = [Journal.of_part(work_folder(output, work), number).read() for number in range(5)]
    frames = [sum(segment.frames for segment in journal) for journal in journals]
    assert sum(frames) == 48 and frames[4] == 0 < min(frames[:4])


def test_parts_that_are_stopped_go_on(tmp_path: Path) -> None:
    source = make_shots(tmp_path / "a.mkv", (50, 50, 50, 50))
    stop = threading.Event()

    class OnePart(Threads):
        def colour(self, task: PartTask) -> Future[ArchiveColorError | None]:
            future = super().colour(task)
            future.result() if task.part.number == 0 else stop.set()
            return future

    with pytest.raises(StoppedError):
        make(PartsCraft(OnePart(), CONFIG), source, tmp_path / "b.mkv", stop)
    assert has_work(tmp_path / "b.mkv", SHORT)
    crew = Threads()
    make(PartsCraft(crew, CONFIG), source, tmp_path / "b.mkv")
    assert 0 not in crew.parts
    assert len(pictures(tmp_path / "b.mkv")) == 200


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_worker_process_that_dies_costs_its_segment(tmp_path: Path) -> None:
    source, output = make_shots(tmp_path / "a.mkv", (90, 110)), tmp_path / "b.mkv"
    task = Task(CONFIG, FFV1, SHORT, overwrite=False, go_on=False)
    killed = []

    def kill_one() -> None:
        folder = work_folder(output, SHORT)
        deadline = time.monotonic() + 120
        while not list(folder.glob("part-*/*.segment")) and time.monotonic() < deadline:
            time.sleep(0.02)
        victim = multiprocessing.active_children()[0]
        killed.append(victim)
        victim.kill()

    with Processes(2, task, never(), lambda job: NoProgress()) as processes:
        killer = threading.Thread(target=kill_one, daemon=True)
        killer.start()
        make(PartsCraft(ProcessCrew(processes), CONFIG), source, output)
        killer.join(120)
    assert len(killed) == 1
    assert len(pictures(output)) == 200


def test_jobs_whose_worker_dies_again_and_again_fail(tmp_path: Path) -> None:
    task = Task(CONFIG, FFV1, SHORT, overwrite=False, go_on=True)
    source = make_clip(tmp_path / "a.mp4", frames=4).path
    with Processes(1, task, never(), lambda job: NoProgress(), attempts=2) as processes:
        assert isinstance(processes.call(os._exit, 9).exception(timeout=120), ArchiveColorError)
        result = processes.submit(Job(source, tmp_path / "b.mkv")).result(timeout=120)
    assert result.state == "coloured", result.error


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_that_dies_while_it_waits_for_work_holds_nobody_up(victim: int) -> None:
    """Whichever of two it is: neither may have died with what the other one, or the end, waits for."""
    task = Task(CONFIG, FFV1, SHORT, overwrite=False, go_on=True)
    with Processes(2, task, never(), lambda job: NoProgress()) as processes:
        both = [processes.call(time.sleep, 1) for _ in range(2)]
        assert [done.result(timeout=120) for done in both] == [None, None]
        workers = multiprocessing.active_children()
        workers[victim].kill()
        workers[victim].join(20)
        begun = time.monotonic()
        if victim:
            assert {processes.call(os.getppid).result(timeout=120) for _ in range(4)} == {os.getpid()}
    assert time.monotonic() - begun < 60
    assert not multiprocessing.active_children()


class TwoWordsError(Exception):
    """One that cannot be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def fail_oddly() -> None:
    raise TwoWordsError("no", "luck")


def test_errors_that_cannot_be_sent_as_they_are_arrive_in_words() -> None:
    task = Task(CONFIG, FFV1, SHORT, overwrite=False, go_on=True)
    with Processes(1, task, never(), lambda job: NoProgress()) as processes:
        with pytest.raises(ArchiveColorError, match="TwoWordsError: no luck"):
            processes.call(fail_oddly).result(timeout=120)
        with pytest.raises(ZeroDivisionError):
            processes.call(divmod, 1, 0).result(timeout=120)


def test_a_display_that_fails_holds_up_no_work(tmp_path: Path) -> None:
    class Broken(NoProgress):
        def update(self, frames: int, total: int | None, limiting: str) -> None:
            raise BrokenPipeError

    task = Task(CONFIG, FFV1, SHORT, overwrite=False, go_on=True)
    source = make_clip(tmp_path / "a.mp4", frames=4).path
    with Processes(1, task, never(), lambda job: Broken()) as processes:
        result = processes.submit(Job(source, tmp_path / "b.mkv")).result(timeout=120)
    assert result.state == "coloured", result.error


def heard_of_stop() -> bool:
    deadline = time.monotonic() + 120
    while not stopping().is_set() and time.monotonic() < deadline:
        time.sleep(0.05)
    return stopping().is_set()


def test_workers_hear_that_they_are_to_stop() -> None:
    task = Task(CONFIG, FFV1, SHORT, overwrite=False, go_on=True)
    stop = threading.Event()
    with Processes(1, task, stop, lambda job: NoProgress()) as processes:
        heard = processes.call(heard_of_stop)
        stop.set()
        assert heard.result(timeout=120)


def test_an_error_in_the_parent_does_not_wait_for_the_work() -> None:
    task = Task(CONFIG, FFV1, SHORT, overwrite=False, go_on=True)
    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError), Processes(1, task, never(), lambda job: NoProgress()) as processes:
        asked = [processes.call(time.sleep, 600) for _ in range(2)]
        raise ZeroDivisionError
    assert time.monotonic() - begun < 120
    assert all(isinstance(one.exception(timeout=1), ArchiveColorError) for one in (*asked, processes.call(os.getpid)))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_signals_to_all_processes_are_the_parents_to_hear(tmp_path: Path) -> None:
    """As a terminal or a batch system sends them, to workers at work as to those that just start."""
    source, output = make_shots(tmp_path / "a.mkv", (90, 110)), tmp_path / "b.mkv"
    stop = threading.Event()
    told: list[int] = []

    def tell_all(number: int) -> None:
        for worker in multiprocessing.active_children():
            assert worker.pid is not None
            os.kill(worker.pid, number)
            told.append(number)

    def has_segment() -> bool:
        with contextlib.suppress(FileNotFoundError):  # a folder that was there when it was listed
            return any(work_folder(output, SHORT).glob("part-*/*.segment"))
        return False

    def tell_then_stop() -> None:
        deadline = time.monotonic() + 120
        while not multiprocessing.active_children() and time.monotonic() < deadline:
            time.sleep(0.001)
        tell_all(signal.SIGTERM)
        while not has_segment() and time.monotonic() < deadline:
            time.sleep(0.02)
        tell_all(signal.SIGTERM)
        tell_all(signal.SIGINT)
        stop.set()

    task = Task(CONFIG, FFV1, SHORT, overwrite=False, go_on=False)
    with Processes(1, task, stop, lambda job: NoProgress(), attempts=1) as processes:
        teller = threading.Thread(target=tell_then_stop, daemon=True)
        teller.start()
        with pytest.raises(StoppedError):
            make(PartsCraft(ProcessCrew(processes), CONFIG), source, output, stop)
        teller.join(120)
    assert len(told) >= 3
    assert has_work(output, SHORT)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_a_cluster_that_loses_a_node_in_mid_film(tmp_path: Path, tiny_weights: Path) -> None:
    """In a process of its own, since Ray leaves threads and signal handlers behind."""
    source = make_shots(tmp_path / "a.mkv", (14,) * 25)
    script = Path(__file__).parent / "two_nodes.py"
    command = [sys.executable, str(script), str(source), str(tmp_path / "b.mkv")]
    environment = {**os.environ, "PYTHONPATH": str(script.parents[2]), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "a node was lost" in done.stdout and "350 frames" in done.stdout
    colorize_film(source, tmp_path / "whole.mkv", Engine(CONFIG), CONFIG, FFV1)
    whole, parts = pictures(tmp_path / "whole.mkv"), pictures(tmp_path / "b.mkv")
    assert len(whole) == len(parts)
    assert all(map(np.array_equal, whole, parts))
