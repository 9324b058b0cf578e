"""Files that outlive a power cut, and writes that outlive a full disk."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

Result = TypeVar("Result")
_END_BYTES: Final = 1 << 16
Patience = Callable[[OSError], None]
"""What to do about a write that failed: come back when it is worth another try, or raise."""


def patiently(wait: Patience, work: Callable[[], Result]) -> Result:
    """``work``'s result, tried again after ``wait`` as long as it fails with `OSError`."""
    while True:
        try:
            return work()
        except OSError as error:
            wait(error)


def write_at(descriptor: int, offset: int, data: bytes) -> None:
    """Write all of ``data`` at ``offset``; done again after an error, it leaves the same file."""
    os.lseek(descriptor, offset, os.SEEK_SET)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def file_sha256(*paths: Path) -> str:
    """Hexadecimal SHA-256 of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def ends_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's first and last 64 KiB: cheap, and as good as always another for another film."""
    with path.open("rb") as stream:
        ends = stream.read(_END_BYTES)
        stream.seek(max(0, path.stat().st_size - _END_BYTES))
        return hashlib.sha256(ends + stream.read()).hexdigest()


def settle(partial: Path, path: Path, wait: Patience) -> None:
    """Give a finished file or folder its name, for good."""
    discard(path)
    patiently(wait, lambda: partial.replace(path))
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on disk; Windows has no way to sync a folder."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
