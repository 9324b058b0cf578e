"""Signals that a parent hears for its child processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

PARENTS_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
"""A terminal or a batch system sends them to all processes: the parent hears them, and tells its workers what to do."""


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Processes that are started in the block are born with these signals blocked, where the system can do so."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_parents_signals() -> None:
    """In a child process, for good."""
    for number in PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
