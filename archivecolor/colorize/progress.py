"""How the work tells whoever started it how it goes, and is told to stop."""

from __future__ import annotations

import logging
import threading
from typing import Literal, Protocol

log = logging.getLogger(__name__)

Stage = Literal["decoding", "colouring", "encoding"]


class Progress(Protocol):
    """What a caller who wants to follow the work implements."""

    def update(self, frames: int, total: int | None, limiting: str) -> None:
        """``frames`` of about ``total`` are written; ``limiting`` is the stage that the others wait for."""

    def say(self, text: str) -> None:
        """A whole sentence that cannot wait until the end: the disk is full, work begun earlier goes on."""


class NoProgress:
    """Follows nothing; sentences go to the log."""

    def update(self, frames: int, total: int | None, limiting: str) -> None:
        """Ignore it."""

    def say(self, text: str) -> None:
        """Log it."""
        log.warning("%s", text)


class Stop(Protocol):
    """Whether the work is to stop at the next good place: a `threading.Event`, or another process's."""

    def is_set(self) -> bool:
        """Whether it was asked for."""


def never() -> Stop:
    """A stop that nobody asks for."""
    return threading.Event()
