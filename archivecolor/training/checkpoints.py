"""The run folder's files that must survive a crash: checkpoints and the metrics log."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from archivecolor.errors import DataError


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int) -> Path:
    """Write ``state`` as ``step-NNNNNNNN.pt``, atomically and synced to disk; drop all but the ``keep`` newest.

    Raises:
        DataError: it cannot be written (a full disk, say); what was there before is still there.
    """
    target = folder / f"step-{step:08d}.pt"
    partial = target.with_suffix(".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError
        partial.unlink(missing_ok=True)
        raise DataError(
            f"{target}: the checkpoint cannot be written ({error}); free some space, then --resume"
        ) from error
    for old in checkpoints(folder)[: -max(1, keep)]:
        old.unlink()
    return target


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints in ``folder``, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read one checkpoint on the CPU, without executing pickled code.

    The whole of it is read: tensors left on disk would be lost where another machine deletes the file.

    Raises:
        DataError: it is not whole.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not verify checksums
        if damaged is not None:
            raise DataError(f"{path}: damaged (checksum of {damaged})")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable checkpoint ({error})") from error
    if not isinstance(state, dict) or "step" not in state:
        raise DataError(f"{path}: not a checkpoint")
    return state


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint in ``folder``, or None where there is none at all, and warnings.

    A damaged one is set aside as ``.damaged``, with a warning, and the one before it is taken.

    Raises:
        DataError: there are checkpoints, and every one is damaged.
    """
    for partial in folder.glob("*.partial"):
        partial.unlink()
    found = checkpoints(folder)
    warnings: list[str] = []
    damaged: list[Path] = []
    for path in reversed(found):
        try:
            load_checkpoint(path)
        except DataError as error:
            warnings.append(f"{error}; going on from the checkpoint before it")
            damaged.append(path)
            continue
        for other in damaged:
            other.replace(other.with_suffix(".damaged"))
        return path, warnings
    if found:
        raise DataError(f"{folder}: none of its {len(found)} checkpoints is whole; start again with another --out")
    return None, warnings


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while ``path`` is written into a `DataError` that names it."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or choose another place"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON under a temporary name, then rename; raises `DataError` if it cannot be written."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` under a temporary name, then rename; raises `DataError` if it cannot be written."""
    partial = path.with_suffix(path.suffix + ".partial")
    with writing(path):
        partial.write_text(text)
        partial.replace(path)


class MetricsLog:
    """``metrics.jsonl``: one JSON object a line, each with its ``step``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        """Add one line; raises `DataError` if it cannot be written."""
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Every whole record; a line cut short or garbled by a crash is left out."""
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                records.append(record)
        return records

    def rewind(self, step: int) -> None:
        """Forget what was logged after ``step``, which a resumed run will log again."""
        kept = [record for record in self.read() if record["step"] <= step]
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
