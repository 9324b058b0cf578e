"""Whether somebody is at work in a folder: a lock that the system gives back when its holder ends, however it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

NAME: Final = "lock"


def is_held(folder: Path) -> bool:
    """Whether someone holds the lock in ``folder``."""
    if not (folder / NAME).exists():
        return False
    try:
        with FileLock(folder / NAME, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # it was removed just now, or lies on a disk that is read only
        return False
