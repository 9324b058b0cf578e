"""The motion search in processes of its own, out of the way of the threads that launch a GPU's work.

A search is a hundred short calls a frame. Threads that make them let go of the interpreter's lock and ask for it back
at each, and every launch of the one thread that steadies the colour has to wait for its turn among them.

The processes are plain interpreters at the other end of pipes. Those of `concurrent.futures` run the main script of
whoever uses the library once more, need semaphores, and outlive a parent that is killed.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Final, cast

from archivecolor.colorize.motion import Glimpse, Link, find_links
from archivecolor.colorize.signals import signals_held_back

log = logging.getLogger(__name__)

FindLinks = Callable[[Glimpse | None, Sequence[Glimpse]], list[Link | None]]
"""`motion.find_links`, wherever that is done."""

_SERVE: Final = "import sys; sys.path[:] = sys.argv[1:]; from archivecolor.colorize.motion_worker import serve; serve()"
_MOST_END_S: Final = 5.0
_MOST_SEARCH_S: Final = 60.0  # a batch takes a tenth of a second


class MotionProcesses:
    """``count`` processes that find motion, for as many threads at a time; use as a context manager.

    Without any, with one that cannot be started, and in place of one that dies, the threads search for themselves: what
    they find is the same, so that this costs a film nothing but time.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._processes: list[_Process] = []
        self._idle: SimpleQueue[_Process | None] = SimpleQueue()

    def __enter__(self) -> MotionProcesses:
        for _ in range(self._count):
            self._idle.put(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.hang_up()
        for process in self._processes:
            process.wait()

    def find_links(self, before: Glimpse | None, frames: Sequence[Glimpse]) -> list[Link | None]:
        """See `motion.find_links`; may be called in several threads at once."""
        if not self._count:
            return find_links(before, frames)
        process, fit = self._idle.get(), None
        try:
            if process is not None:
                links = process.find_links(before, frames)
                fit = process
                return links
        except (OSError, EOFError, pickle.UnpicklingError):
            log.warning("a process that looks for motion has died; a thread does its work, more slowly")
        finally:
            self._idle.put(fit)
        return find_links(before, frames)

    def _start(self) -> _Process | None:
        if getattr(sys, "frozen", False) or not sys.executable:
            return None  # what would be started is no Python
        try:
            process = _Process()
        except OSError as error:
            log.warning("no process can be started to look for motion (%s); a thread does it, more slowly", error)
            return None
        self._processes.append(process)
        return process


class _Process:
    """One of them, and its pipes."""

    def __init__(self) -> None:
        with signals_held_back():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _SERVE, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def find_links(self, before: Glimpse | None, frames: Sequence[Glimpse]) -> list[Link | None]:
        """Raises `OSError`, `EOFError` or `pickle.UnpicklingError` where the process died, or hung and was killed."""
        limit = threading.Timer(_MOST_SEARCH_S, self._process.kill)
        limit.daemon = True
        limit.start()
        try:
            pickle.dump((before, frames), self._requests, pickle.HIGHEST_PROTOCOL)
            self._requests.flush()
            return cast("list[Link | None]", pickle.load(self._answers))
        finally:
            limit.cancel()

    def hang_up(self) -> None:
        """Have it end, once it has done what it is at."""
        with suppress(OSError):
            self._requests.close()

    def wait(self) -> None:
        """For its end, after `hang_up`."""
        try:
            self._process.wait(_MOST_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
