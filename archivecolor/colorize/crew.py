"""Who does the jobs: this process alone, or several worker processes, one a device."""

from __future__ import annotations

import functools
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol, TypeVar

import torch

from archivecolor.colorize.batch import EngineCraft, Job, JobResult, run_job
from archivecolor.colorize.engine import Engine
from archivecolor.colorize.progress import NoProgress, Progress, Stop
from archivecolor.colorize.worker_process import (
    WorkerDiedError,
    WorkerProcess,
    device_of_this_worker,
    stopping,
    tell_parent,
)
from archivecolor.config import ColorizeConfig, WorkConfig
from archivecolor.errors import ArchiveColorError
from archivecolor.film import OutputSettings

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Follow = Callable[[Job], Progress]
"""Gives the progress of a job that begins."""


@dataclass(frozen=True)
class Task:
    """How jobs are to be done."""

    config: ColorizeConfig
    settings: OutputSettings
    work: WorkConfig
    overwrite: bool
    go_on: bool


class Crew(Protocol):
    """Who does the jobs, ``workers`` at a time."""

    @property
    def workers(self) -> int:
        """How many work side by side."""

    def submit(self, job: Job) -> Future[JobResult]:
        """Have a job done."""


class Alone:
    """This process does the jobs, one after another; `submit` returns when the job is done."""

    workers = 1

    def __init__(self, task: Task, stop: Stop, follow: Follow) -> None:
        self._task, self._stop, self._follow = task, stop, follow

    def submit(self, job: Job) -> Future[JobResult]:
        """Do the job."""
        done: Future[JobResult] = Future()
        done.set_result(_do(job, self._engine, self._task, self._follow(job), self._stop))
        return done

    @functools.cached_property
    def _engine(self) -> Engine:
        return Engine(self._task.config)


def _do(job: Job, engine: Engine, task: Task, progress: Progress, stop: Stop) -> JobResult:
    return run_job(
        job,
        EngineCraft(engine),
        task.config,
        task.settings,
        overwrite=task.overwrite,
        go_on=task.go_on,
        work=task.work,
        progress=progress,
        stop=stop,
    )


def devices(name: str, workers: int) -> list[str]:
    """A device for each worker: ``auto`` and ``cuda`` are all the GPUs that there are, in turn."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return [f"cuda:{number % torch.cuda.device_count()}" for number in range(workers)]
    return [name] * workers


def workers_by_default(name: str) -> int:
    """One a device."""
    return max(1, torch.cuda.device_count()) if name in ("auto", "cuda") else 1


@dataclass(frozen=True)
class _Call:
    """Work for the next worker that is free, and what it says on the way."""

    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    result: Future[Any]
    progress: Progress

    def tell(self, method: str, arguments: tuple[Any, ...]) -> None:
        """Hand on what the worker says; a display that fails holds up no work."""
        try:
            getattr(self.progress, method)(*arguments)
        except Exception:
            log.debug("progress could not be shown", exc_info=True)


class Processes:
    """Worker processes, each with a device and its share of the cores; use as a context manager.

    They are started when there is work for them. What a worker was at when it died is done again by a new one, from
    the last segment that was journalled, up to ``attempts`` times.
    """

    def __init__(self, workers: int, task: Task, stop: Stop, follow: Follow, attempts: int = 3) -> None:
        self.workers, self._task, self._stop, self._follow = workers, task, stop, follow
        self._attempts = attempts
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._changing = threading.Lock()
        self._over = False
        self._alive: set[WorkerProcess] = set()
        cores = max(1, torch.get_num_threads() // workers)
        self._threads = [
            threading.Thread(target=self._employ, args=(device, cores), name=f"employer {number}", daemon=True)
            for number, device in enumerate(devices(task.config.device, workers))
        ]

    def __enter__(self) -> Processes:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changing:
            self._over = True
        for _ in self._threads:
            self._calls.put(None)
        if error is not None:
            self._kill()
        try:
            for thread in self._threads:
                thread.join()
        except BaseException:
            self._kill()
            raise

    def _kill(self) -> None:
        with self._changing:
            for worker in self._alive:
                worker.kill()

    def submit(self, job: Job) -> Future[JobResult]:
        """Have the job done by the next worker that is free."""
        result: Future[JobResult] = Future()

        def settle(done: Future[JobResult]) -> None:
            error = done.exception()
            if error is None:
                result.set_result(done.result())
            else:
                result.set_result(JobResult(job, "failed", error=ArchiveColorError(f"{job.source}: {error}")))

        self._call(self._follow(job), _work, job, self._task).add_done_callback(settle)
        return result

    def call(self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Have any work done; what it raises, and the death of too many workers, is the result's exception."""
        return self._call(NoProgress(), work, *arguments)

    def _call(self, progress: Progress, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        result: Future[Result] = Future()
        with self._changing:
            if self._over:
                result.set_exception(_given_up())
            else:
                self._calls.put(_Call(work, arguments, result, progress))
        return result

    def _employ(self, device: str, cores: int) -> None:
        """In a thread for each worker: have it do one call after another."""
        worker: WorkerProcess | None = None
        while (call := self._calls.get()) is not None:
            for _ in range(self._attempts):
                try:
                    worker = self._living(worker, device, cores)
                    call.result.set_result(worker.do(call.work, call.arguments, self._stop, call.tell))
                except WorkerDiedError:
                    self._dismiss(worker)
                    worker = None
                    continue
                except BaseException as error:
                    call.result.set_exception(error)
                break
            else:
                call.result.set_exception(_given_up())
        self._dismiss(worker)

    def _living(self, worker: WorkerProcess | None, device: str, cores: int) -> WorkerProcess:
        """``worker``, or another one for it where it is none or dead."""
        if worker is not None and worker.is_alive:
            return worker
        self._dismiss(worker)
        with self._changing:
            if self._over:
                raise _given_up()
            worker = WorkerProcess(device, cores)
            self._alive.add(worker)
        return worker

    def _dismiss(self, worker: WorkerProcess | None) -> None:
        if worker is not None:
            worker.end()
            with self._changing:
                self._alive.discard(worker)


def _given_up() -> ArchiveColorError:
    return ArchiveColorError("its worker process died; is there enough memory?")


class _Messenger:
    """A worker's progress, on its way to the parent."""

    def update(self, frames: int, total: int | None, limiting: str) -> None:
        """See `Progress`."""
        tell_parent("update", frames, total, limiting)

    def say(self, text: str) -> None:
        """See `Progress`."""
        tell_parent("say", text)


@functools.cache
def _engine(config: ColorizeConfig) -> Engine:
    return Engine(config)


def _work(job: Job, task: Task) -> JobResult:
    """In a worker process: do the job on the worker's device."""
    engine = _engine(replace(task.config, device=device_of_this_worker()))
    return _do(job, engine, task, _Messenger(), stopping())
