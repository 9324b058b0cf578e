"""Room on the disk: looked at before and while working, and waited for when there is none."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from archivecolor.colorize.progress import Stop
from archivecolor.errors import FilmEncodeError, StoppedError

Result = TypeVar("Result")

FULL: Final = frozenset(
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name)
)  # Windows has no quota's error of its own
_LOOK_EVERY_S: Final = 1.0


class Space:
    """The space under ``folder``, for one output; ``say`` tells the user when work pauses and goes on.

    ``longest_wait_s`` is how long a full disk is waited for, each time; 0 makes it an error at once. ``output`` is the
    folder that the work goes to in the end.
    """

    def __init__(
        self, folder: Path, say: Callable[[str], None], stop: Stop, longest_wait_s: float, output: Path | None = None
    ) -> None:
        self.folder = folder
        self._output = output or folder
        self._say, self._stop, self._longest_wait_s = say, stop, longest_wait_s
        self._since: float | None = None
        self._foretold = False

    def at(self, folder: Path) -> Space:
        """The same for another folder."""
        return Space(folder, self._say, self._stop, self._longest_wait_s)

    @property
    def free_bytes(self) -> int:
        """What an ordinary user may still write."""
        return shutil.disk_usage(_existing(self.folder)).free

    def wait(self, error: OSError) -> None:
        """Come back a moment later for another try at what failed with ``error``.

        Raises:
            FilmEncodeError: it failed for another reason than a full disk, or the wait has been too long.
            StoppedError: the work is to stop.
        """
        name = error.filename or self.folder
        if error.errno not in FULL:
            raise FilmEncodeError(f"{name}: cannot be written ({error.strerror or error})") from error
        now = time.monotonic()
        if self._since is None:
            self._since = now
            if self._longest_wait_s:
                self._say(
                    f"{self.folder}: the disk is full, work pauses; free some space and it goes on by itself "
                    "(or stop it, and run the same command later)"
                )
        if now - self._since >= self._longest_wait_s:
            raise FilmEncodeError(f"{self.folder}: the disk is full; free some space and run again") from error
        if self._stop.is_set():
            raise StoppedError(f"{self.folder}: stopped while the disk was full; free some space and run again")
        time.sleep(min(_LOOK_EVERY_S, self._longest_wait_s))

    def found(self) -> None:
        """A write went well: the next full disk is another one."""
        if self._since is not None:
            self._since = None
            self._say(f"{self.folder}: there is space again, work goes on")

    def require(self, size_bytes: int) -> None:
        """Wait until ``size_bytes`` are free; raises as `wait`."""
        while self.free_bytes < size_bytes:
            self.wait(OSError(errno.ENOSPC, "No space left on device"))
        self.found()

    def patiently(self, work: Callable[[], Result]) -> Result:
        """``work``'s result, tried again as long as it raises `FilmEncodeError` for want of space."""
        while True:
            try:
                result = work()
            except FilmEncodeError as error:
                if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in FULL:
                    raise
                self.wait(error.__cause__)
            else:
                self.found()
                return result

    def foretell(self, bytes_per_frame: float, frames_left: int, frames: int) -> None:
        """Say, once, how much will be needed for the rest and to join it all, where there is not that much."""
        on_one_disk = _existing(self.folder).stat().st_dev == _existing(self._output).stat().st_dev
        needed = bytes_per_frame * (frames_left + (frames if on_one_disk else 0))
        free = self.free_bytes
        if free < needed and not self._foretold:
            self._foretold = True
            self._say(
                f"{self.folder}: about {needed / 1e9:.3g} GB more are needed and {free / 1e9:.3g} GB are free; "
                "work will pause when the disk is full"
            )


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
