"""Outputs that appear under their name only once they are whole."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archivecolor.disk import discard, sync
from archivecolor.errors import FilmEncodeError

log = logging.getLogger(__name__)


@contextmanager
def atomic_output(output: Path) -> Iterator[Path]:
    """A temporary path beside ``output`` to write a file or a folder to, which gets its name at the end of the block.

    The file is on disk before it gets its name, so that a power cut leaves the old state or the new one. When the
    block raises, the temporary file is removed and what was at ``output`` before stays. What a killed process left of
    the same output is removed. Raises `FilmEncodeError` when the file cannot be put in place.
    """
    stem = f".{hashlib.sha256(output.name.encode(errors='surrogateescape')).hexdigest()[:12]}"
    for stale in output.parent.glob(f"{stem}.*.partial"):
        if not _is_running(stale.suffixes[-2]):
            _remove(stale)
    partial = output.with_name(f"{stem}.{os.getpid()}.partial")
    try:
        yield partial
        try:
            if partial.is_dir():
                for file in partial.iterdir():
                    sync(file)
                _clear(output, output.with_name(f"{stem}.{os.getpid()}.replaced.partial"))
            sync(partial)
            partial.replace(output)
            sync(output.parent)
        except OSError as error:
            raise FilmEncodeError(
                f"{output}: cannot be put in place ({error.strerror}); choose another place for the output"
            ) from error
    finally:
        _remove(partial)


def require_place(output: Path) -> None:
    """Make ``output``'s folder, and find out before any work whether it can be put there.

    Raises `FilmEncodeError` when not.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise FilmEncodeError(
            f"{output}: cannot be written there ({error.strerror}); choose another place for the output"
        ) from error


def _is_running(pid_suffix: str) -> bool:
    """Whether a process of this number, given as ``.123``, exists; yes where one cannot ask."""
    number = pid_suffix.removeprefix(".")
    if sys.platform == "win32" or not number.isdigit():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _clear(folder: Path, aside: Path) -> None:
    """Take the folder that a new one is to replace out of its way."""
    if folder.is_dir() and any(folder.iterdir()):
        folder.replace(aside)
        _remove(aside)


def _remove(partial: Path) -> None:
    try:
        discard(partial)
    except OSError as error:  # a read-only folder, say: then it was never made, and another error is on its way
        log.debug("%s: cannot be removed (%s)", partial, error)
