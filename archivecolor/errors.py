"""The exceptions that the library raises on purpose; each message names the file and the remedy.

Only `archivecolor.cli` turns them into printed lines and exit codes.
"""

from __future__ import annotations

import re
from pathlib import Path


class ArchiveColorError(Exception):
    """Base of every error that archivecolor raises on purpose."""


class FilmOpenError(ArchiveColorError):
    """A film or still cannot be opened, or holds no picture that can be colourised."""


class FilmDecodeError(ArchiveColorError):
    """A film opened, but its picture cannot be decoded."""


class FilmEncodeError(ArchiveColorError):
    """An output cannot be written, or its settings do not fit its container."""


class WeightsError(ArchiveColorError):
    """Generator weights cannot be found, verified or loaded."""


class DataError(ArchiveColorError):
    """Training or evaluation photographs, or a run folder, cannot be used."""


class ConfigError(ArchiveColorError):
    """Settings contradict each other or are out of range."""


class DeviceError(ArchiveColorError):
    """The device or precision asked for is not there, or its memory does not hold a single frame."""


class StoppedError(ArchiveColorError):
    """Work was asked to stop and did, at a place from which the same command goes on."""


class BusyError(ArchiveColorError):
    """Another run is at work on the same output."""


def may_pass(error: ArchiveColorError) -> bool:
    """Whether another try may go well, because the machine failed, and not the film or what was asked for."""
    lasting = (FilmOpenError, FilmDecodeError, WeightsError, DataError, ConfigError)
    return not isinstance(error, lasting) or isinstance(error.__cause__, (OSError, MemoryError))


def missing(path: Path) -> str:
    """In words, that there is nothing at ``path``, which may have been meant as an address in the network."""
    if re.match(r"(https?|ftps?|sftp|rtsp|rtmp|smb|s3):/", str(path), re.IGNORECASE):
        return f"{str(path).replace(':/', '://', 1)}: films are not read over the network; download it first"
    return f"{path}: no such file or folder"
