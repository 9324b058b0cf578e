"""Who does the jobs: this process alone, or several worker processes, one a device."""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Event
from queue import Empty
from types import TracebackType
from typing import Any, Protocol, TypeVar

import torch

from archivecolor.colorize.batch import EngineCraft, Job, JobResult, run_job
from archivecolor.colorize.engine import Engine
from archivecolor.colorize.progress import Progress, Stop
from archivecolor.colorize.signals import ignore_parents_signals, signals_held_back
from archivecolor.config import ColorizeConfig, WorkConfig
from archivecolor.errors import ArchiveColorError
from archivecolor.film import OutputSettings

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


class Processes:
    """Worker processes, each with a device and its share of the cores; use as a context manager.

    A worker that dies takes the others of its pool along; their jobs are done again by a new pool, from the last
    segments that were journalled, up to ``attempts`` times.
    """

    def __init__(self, workers: int, task: Task, stop: Stop, follow: Follow, attempts: int = 3) -> None:
        self.workers, self._task, self._stop, self._follow = workers, task, stop, follow
        self._attempts = attempts
        self._context = multiprocessing.get_context("spawn")
        self._stopping = self._context.Event()
        self._messages: Any = self._context.Queue()
        self._following: dict[Job, Progress] = {}
        self._changing = threading.Lock()
        self._over = threading.Event()
        self._pool = self._start_pool()
        self._listener = threading.Thread(target=self._listen, name="listener", daemon=True)

    def _start_pool(self) -> ProcessPoolExecutor:
        numbers: Any = self._context.Queue()
        for device in devices(self._task.config.device, self.workers):
            numbers.put(device)
        threads = max(1, torch.get_num_threads() // self.workers)
        arguments = (numbers, threads, self._stopping, self._messages)
        return ProcessPoolExecutor(self.workers, self._context, _start_worker, arguments)

    def _replace_pool(self) -> ProcessPoolExecutor:
        """A new one for one that has lost a worker, whose others hear no gentler word than this."""
        _kill_workers()
        self._pool = self._start_pool()
        return self._pool

    def __enter__(self) -> Processes:
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if error is not None:
            _kill_workers()
        self._pool.shutdown(cancel_futures=True)
        self._listener.join()

    def submit(self, job: Job) -> Future[JobResult]:
        """Have the job done by the next worker that is free."""
        self._following[job] = self._follow(job)
        result: Future[JobResult] = Future()

        def settle(done: Future[JobResult]) -> None:
            error = done.exception()
            if error is None:
                result.set_result(done.result())
            else:
                result.set_result(JobResult(job, "failed", error=ArchiveColorError(f"{job.source}: {error}")))

        self.call(_work, job, self._task).add_done_callback(settle)
        return result

    def call(self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Have any work done; what it raises, and the death of too many workers, is the result's exception."""
        result: Future[Result] = Future()
        self._try(work, arguments, result, 1)
        return result

    def _try(self, work: Callable[..., Result], arguments: Any, result: Future[Result], attempt: int) -> None:
        with self._changing, signals_held_back():  # until they are ignored, in workers that are started now
            pool = self._pool
            try:
                future = pool.submit(work, *arguments)
            except BrokenProcessPool:
                pool = self._replace_pool()
                future = pool.submit(work, *arguments)

        def settle(done: Future[Result]) -> None:
            error = CancelledError() if done.cancelled() else done.exception()
            if error is None:
                result.set_result(done.result())
            elif not isinstance(error, BrokenProcessPool):
                result.set_exception(error)
            else:
                with self._changing:
                    if self._pool is pool:
                        self._replace_pool()
                if attempt < self._attempts and not self._over.is_set():
                    self._try(work, arguments, result, attempt + 1)
                else:
                    result.set_exception(ArchiveColorError("its worker process died; is there enough memory?"))

        future.add_done_callback(settle)

    def _listen(self) -> None:
        """Hand on what the workers tell, and to them that they are to stop."""
        while not self._over.is_set():
            if self._stop.is_set():
                self._stopping.set()
            try:
                job, method, arguments = self._messages.get(timeout=0.1)
            except Empty:
                continue
            getattr(self._following[job], method)(*arguments)


def _kill_workers() -> None:
    for process in multiprocessing.active_children():
        process.kill()


@dataclass
class _Messenger:
    """A worker's progress, on its way to the parent."""

    messages: Any
    job: Job

    def update(self, frames: int, total: int | None, limiting: str) -> None:
        """See `Progress`."""
        self.messages.put((self.job, "update", (frames, total, limiting)))

    def say(self, text: str) -> None:
        """See `Progress`."""
        self.messages.put((self.job, "say", (text,)))


@dataclass(frozen=True)
class _Place:
    """What a worker process has got from its parent."""

    device: str
    stopping: Event
    messages: Any


_places: list[_Place] = []  # of this worker process, set once when it starts


def _start_worker(device_names: Any, threads: int, stopping: Event, messages: Any) -> None:
    ignore_parents_signals()
    torch.set_num_threads(threads)
    _places.append(_Place(device_names.get(), stopping, messages))
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, name="end with parent", daemon=True).start()


@functools.cache
def _engine(config: ColorizeConfig) -> Engine:
    return Engine(config)


def device_of_this_worker() -> str:
    """In a worker process: the device that it was given."""
    [place] = _places
    return place.device


def _work(job: Job, task: Task) -> JobResult:
    """In a worker process: do the job on the worker's device."""
    [place] = _places
    engine = _engine(replace(task.config, device=place.device))
    return _do(job, engine, task, _Messenger(place.messages, job), place.stopping)
