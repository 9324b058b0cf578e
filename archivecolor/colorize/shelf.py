"""A shelf of films into one folder: what is done is not done again, what failed is tried again, nothing stops the rest.

The catalogue remembers; the outputs themselves have the last word. Several runs may share a folder: each film is
worked on by the one that has its lock.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from archivecolor.colorize.batch import Job, JobResult
from archivecolor.colorize.catalogue import Catalogue, Entry, now, this_worker
from archivecolor.colorize.crew import Crew, Task
from archivecolor.colorize.places import place_of
from archivecolor.colorize.progress import Stop
from archivecolor.colorize.sidecar import WeightsFile, read_record, settings_fingerprint
from archivecolor.colorize.space import Space
from archivecolor.colorize.work import is_busy, rename_work, work_folder
from archivecolor.config import WorkConfig
from archivecolor.disk import file_sha256
from archivecolor.errors import ArchiveColorError, DataError, FilmEncodeError

_SETTLED_S: Final = 5.0
"""A file in a watched folder is taken for complete when it has not changed for so long."""
_LOOK_EVERY_S: Final = 2.0


@dataclass(frozen=True)
class Selection:
    """Which files of a shelf are meant: those that match an ``include``, if there is any, and no ``exclude``.

    Patterns are those of the shell, held against the file's name and its path within the shelf.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __call__(self, relative: Path) -> bool:
        """Whether the file at this path within the shelf is."""

        def matches(patterns: tuple[str, ...]) -> bool:
            names = (relative.name, relative.as_posix())
            return any(fnmatch.fnmatch(name, pattern) for pattern in patterns for name in names)

        return (not self.include or matches(self.include)) and not matches(self.exclude)


@dataclass
class Shelf:
    """The jobs of one folder of outputs.

    Args:
        catalogue: of that folder.
        space: for the catalogue.
        settings: fingerprint of all that decides what an output looks like.
        retries: how often what failed, and may pass, is tried again before it is given up for this run.
        overwrite: do again what is done.
    """

    catalogue: Catalogue
    space: Space
    settings: str
    work: WorkConfig
    crew: Crew
    stop: Stop
    retries: int = 1
    overwrite: bool = False
    _failures: dict[str, int] = field(default_factory=dict)
    _before: dict[str, Entry] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Do them; results come as they are ready. What another run is at work on is looked at again at the end."""
        self.space.patiently(lambda: self._queue(jobs))
        waiting, busy = deque(jobs), deque[Job]()
        running: dict[Future[JobResult], Job] = {}
        while running or (waiting and not self.stop.is_set()):
            while waiting and len(running) < self.crew.workers and not self.stop.is_set():
                job = waiting.popleft()
                if (result := self._known(job)) is not None:
                    yield result
                elif is_busy(place_of(job.output), self.work):
                    busy.append(job)
                elif (result := self._begin(job)) is not None:
                    yield result
                else:
                    running[self.crew.submit(job)] = job
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                job, result = running.pop(future), future.result()
                if result.state == "elsewhere":
                    self.space.patiently(functools.partial(self._take_back, job))
                    busy.append(job)
                    continue
                if result.state == "skipped":
                    self.space.patiently(functools.partial(self._take_back, job))
                self._finish(result)
                if result.state == "failed" and result.may_pass and self._is_worth_another_try(job):
                    waiting.append(job)
                else:
                    yield result
        for job in busy:
            error = ArchiveColorError(f"{job.output}: another run is at work on it")
            yield self._known(job) or JobResult(job, "elsewhere", error=error)

    def watch(self, find: Callable[[], Sequence[Job]]) -> Iterator[JobResult]:
        """Do what ``find`` finds, now and whenever there is something new, until asked to stop.

        A file is taken once it has not changed for some seconds, and one that failed when it changes.
        """
        seen: dict[Path, tuple[tuple[int, int], float]] = {}
        tried: dict[Path, tuple[int, int]] = {}
        while not self.stop.is_set():
            fresh = []
            for job in find():
                stat = _stat(job.source)
                state = (stat.st_size, stat.st_mtime_ns) if stat is not None else None
                if state is None or tried.get(job.source) == state:
                    continue
                if job.source not in seen or seen[job.source][0] != state:
                    seen[job.source] = (state, time.monotonic())
                elif time.monotonic() - seen[job.source][1] >= _SETTLED_S:
                    tried[job.source] = state
                    del seen[job.source]
                    self._failures.pop(self._name(job), None)
                    fresh.append(job)
            for result in self.run(fresh):
                if result.state == "elsewhere":
                    tried.pop(result.job.source, None)
                yield result
            until = time.monotonic() + _LOOK_EVERY_S
            while time.monotonic() < until and not self.stop.is_set():
                time.sleep(0.1)

    # What is known

    def _name(self, job: Job) -> str:
        return job.output.relative_to(self.catalogue.folder).as_posix()

    def _queue(self, jobs: Sequence[Job]) -> None:
        """Enter what is new, follow what was moved, and forget what has gone before anybody began with it."""
        with self.catalogue.together():
            for entry in self.catalogue.waiting():
                if not Path(entry.source).exists():
                    self.catalogue.remove(entry.output)
            for job in jobs:
                if self.catalogue.find(self._name(job)) is not None or self._moved(job) is not None:
                    continue
                if not self._was_moved(job) and not self._was_begun(job):
                    self.catalogue.put(Entry(self._name(job), str(job.source.absolute()), queued=now()))

    def _known(self, job: Job) -> JobResult | None:
        """The job's result where the catalogue and the files agree that it is done, here or under another name."""
        if self.overwrite:
            return None
        entry = self.catalogue.find(self._name(job)) or self._moved(job)
        if entry is None or entry.state != "coloured" or entry.settings != self.settings:
            return None
        output = self.catalogue.folder / entry.output
        is_same = output != job.output or entry.has_source(job.source)
        return JobResult(Job(job.source, output), "skipped") if is_same and entry.has_output(output) else None

    def _was_moved(self, job: Job) -> bool:
        """Whether the source was coloured when it lay elsewhere or had another name; the catalogue follows it."""
        stat = _stat(job.source)
        if self.overwrite or stat is None:
            return False
        for entry in self._made_of(stat.st_size):
            is_gone = not Path(entry.source).exists()
            if is_gone and entry.source_sha256 and entry.source_sha256 == _sha256(job.source):
                self.catalogue.change(entry.output, source=str(job.source.absolute()), source_mtime_ns=stat.st_mtime_ns)
                return True
        return False

    def _was_begun(self, job: Job) -> bool:
        """Whether the source was begun, or failed, when it had another name: its row and its work get the new one."""
        stat = _stat(job.source)
        for entry in self.catalogue.of_size(stat.st_size) if stat is not None else []:
            is_same = stat is not None and entry.source_mtime_ns == stat.st_mtime_ns
            if is_same and entry.state_now not in ("coloured", "working") and not Path(entry.source).exists():
                begun, output = place_of(self.catalogue.folder / entry.output), place_of(job.output)
                rename_work(begun, output, self.work)
                work = str(work_folder(output, self.work).absolute())
                self.catalogue.change(
                    entry.output, output=self._name(job), source=str(job.source.absolute()), work=work
                )
                return True
        return False

    def _made_of(self, source_bytes: int) -> list[Entry]:
        return [entry for entry in self.catalogue.of_size(source_bytes) if entry.state == "coloured"]

    def _moved(self, job: Job) -> Entry | None:
        source = str(job.source.absolute())
        stat = _stat(job.source)
        made = self._made_of(stat.st_size) if stat is not None else []
        return next((entry for entry in made if entry.source == source), None)

    # What happens

    def _begin(self, job: Job) -> JobResult | None:
        """Enter the job as begun, unless another run has finished it just now: then its result."""

        def enter() -> JobResult | None:
            with self.catalogue.together():
                if (result := self._known(job)) is None:
                    self._enter(job)
                return result

        return self.space.patiently(enter)

    def _enter(self, job: Job) -> None:
        name = self._name(job)
        entry = self.catalogue.find(name)
        if entry is not None:
            self._before[name] = entry
        stat = _stat(job.source)
        self.catalogue.put(
            Entry(
                name,
                str(job.source.absolute()),
                state="working",
                attempts=(entry.attempts if entry else 0) + 1,
                queued=entry.queued if entry else now(),
                started=now(),
                source_bytes=stat and stat.st_size,
                source_mtime_ns=stat and stat.st_mtime_ns,
                settings=self.settings,
                worker=this_worker(),
                work=str(work_folder(place_of(job.output), self.work).absolute()),
            )
        )

    def _take_back(self, job: Job) -> None:
        """Another run was faster, or there was nothing to do: this was no attempt."""
        name, before = self._name(job), self._before.get(self._name(job))
        with self.catalogue.together():
            entry = self.catalogue.find(name)
            if entry is not None:
                self.catalogue.change(name, attempts=entry.attempts - 1)
            if entry is not None and before is not None and entry.worker == this_worker():
                self.catalogue.change(name, worker=before.worker, started=before.started)

    def _finish(self, result: JobResult) -> None:
        job, report = result.job, result.report
        values: dict[str, object] = {"finished": now(), "error": str(result.error) if result.error else None}
        values["state"] = "coloured" if result.state == "skipped" else result.state
        if report is not None:
            values |= {"frames": report.frames_written, "seconds": round(report.seconds, 3)}
        if values["state"] == "coloured" and job.output.is_file():
            stat = job.output.stat()
            values |= {"output_bytes": stat.st_size, "output_mtime_ns": stat.st_mtime_ns}
            values["source_sha256"] = _recorded_sha256(job.output)
        self.space.patiently(lambda: self.catalogue.change(self._name(job), **values))

    def _is_worth_another_try(self, job: Job) -> bool:
        name = self._name(job)
        self._failures[name] = self._failures.get(name, 0) + 1
        return self._failures[name] <= self.retries


def _stat(source: Path) -> os.stat_result | None:
    """What the system says of a file, None where it is gone by now or is none."""
    try:
        return source.stat() if source.is_file() else None
    except OSError:
        return None


def _sha256(source: Path) -> str | None:
    try:
        return file_sha256(source)
    except OSError:
        return None


def _recorded_sha256(output: Path) -> str | None:
    try:
        return str(read_record(output)["source"]["sha256"])
    except (DataError, KeyError, TypeError):
        return None


@contextmanager
def open_shelf(
    folder: Path, task: Task, crew: Crew, stop: Stop, retries: int, say: Callable[[str], None]
) -> Iterator[Shelf]:
    """A shelf whose outputs go into ``folder``, which is made; raises `FilmEncodeError`, and `WeightsError`.

    ``say`` tells the user when the disk is full.
    """
    fingerprint = settings_fingerprint(WeightsFile.find(task.config.weights), task.config, task.settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FilmEncodeError(
            f"{folder}: cannot be made ({error.strerror}); choose another place for the output"
        ) from error
    space = Space(folder, say, stop, task.work.wait_for_space_s)
    with space.patiently(lambda: Catalogue(folder)) as catalogue:
        yield Shelf(catalogue, space, fingerprint, task.work, crew, stop, retries, task.overwrite)
