"""A worker process that may die at any moment without holding up anyone.

It shares nothing with other workers: what they say to each other goes through a pipe of its own, which ends when either
side does. A lock that several processes share stays locked for ever when the one that has it is killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Final

import torch

from archivecolor.colorize.progress import Stop
from archivecolor.colorize.signals import ignore_parents_signals, signals_held_back
from archivecolor.errors import ArchiveColorError

_LOOK_EVERY_S: Final = 0.1
_TIME_TO_END_S: Final = 10.0
_STOP: Final = b"stop"
_END: Final = b"end"
_SPAWN: Final = multiprocessing.get_context("spawn")

Tell = Callable[[str, tuple[Any, ...]], None]
"""Takes what a worker says on the way: the name of a method of `Progress`, and its arguments."""


class WorkerDiedError(Exception):
    """The process ended in the midst of its work."""


class WorkerProcess:
    """A process with a device and a share of the cores, as its parent sees it; used by one thread at a time."""

    def __init__(self, device: str, threads: int) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_work_for_parent, args=(theirs, device, threads), name=f"worker {device}")
        self._told_to_stop = False
        try:
            resource_tracker.ensure_running()  # starting it would let the signals through
            with signals_held_back():  # until they are ignored there
                self._process.start()
        finally:
            theirs.close()

    @property
    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._process.is_alive()

    def do(self, work: Callable[..., Any], arguments: tuple[Any, ...], stop: Stop, tell: Tell) -> Any:
        """The result of ``work``, which hears of ``stop`` by `stopping`.

        Raises what ``work`` raises, and `WorkerDiedError`.
        """
        self._send(pickle.dumps((work, arguments)))
        while True:
            if stop.is_set() and not self._told_to_stop:
                self._told_to_stop = True
                self._send(_STOP)
            ready = wait([self._pipe, self._process.sentinel], _LOOK_EVERY_S)
            if not ready:
                continue
            kind, content = self._receive()
            if kind == "told":
                tell(*content)
            elif kind == "raised":
                raise content
            else:
                return content

    def _send(self, message: bytes) -> None:
        try:
            self._pipe.send_bytes(message)
        except OSError as error:
            raise WorkerDiedError from error

    def _receive(self) -> Any:
        try:
            if not self._pipe.poll():  # only the process's end woke us
                raise EOFError
            message = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise WorkerDiedError from error
        return pickle.loads(message)

    def kill(self) -> None:
        """End it at once; from any thread."""
        self._process.kill()

    def end(self) -> None:
        """Have it end, by itself if it soon does."""
        with contextlib.suppress(WorkerDiedError):
            self._send(_END)
        self._process.join(_TIME_TO_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(_TIME_TO_END_S)
        self._pipe.close()


@dataclass(frozen=True)
class _Place:
    """What a worker process has got from its parent."""

    device: str
    stopping: threading.Event
    pipe: Connection[bytes, bytes]


_places: list[_Place] = []  # of this worker process, set once when it starts


def device_of_this_worker() -> str:
    """In a worker process: the device that it was given."""
    [place] = _places
    return place.device


def stopping() -> Stop:
    """In a worker process: whether its parent wants it to stop."""
    [place] = _places
    return place.stopping


def tell_parent(method: str, *arguments: Any) -> None:
    """In a worker process, while it works: see `Tell`."""
    [place] = _places
    place.pipe.send_bytes(pickle.dumps(("told", (method, arguments))))


def _work_for_parent(pipe: Connection[bytes, bytes], device: str, threads: int) -> None:
    ignore_parents_signals()
    torch.set_num_threads(threads)
    place = _Place(device, threading.Event(), pipe)
    _places.append(place)
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(place, calls), name="listener", daemon=True).start()
    while (call := calls.get()) != _END:
        pipe.send_bytes(_answer(call))


def _listen(place: _Place, calls: queue.SimpleQueue[bytes]) -> None:
    try:
        while (message := place.pipe.recv_bytes()) != _END:
            if message == _STOP:
                place.stopping.set()
            else:
                calls.put(message)
        calls.put(_END)
    except (EOFError, OSError):  # the parent is no more
        os._exit(1)


def _answer(call: bytes) -> bytes:
    try:
        work, arguments = pickle.loads(call)
        return pickle.dumps(("result", work(*arguments)))
    except BaseException as error:
        return _raised(error)


def _raised(error: BaseException) -> bytes:
    """``error`` for the parent, or its words where it would not come out there as it went in."""
    try:
        message = pickle.dumps(("raised", error))
        pickle.loads(message)
    except Exception:
        return pickle.dumps(("raised", ArchiveColorError(f"{type(error).__name__}: {error}")))
    return message
