"""The run folder's files that must survive a crash: checkpoints and the metrics log."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from archivecolor.errors import DataError


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int) -> Path:
    """Write ``state`` as ``step-NNNNNNNN.pt`` atomically and synced; drop all but the ``keep`` newest."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{step:08d}.pt"
    partial = target.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
    for old in checkpoints(folder)[: -max(1, keep)]:
        old.unlink()
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in ``folder``, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read one checkpoint on the CPU, without executing pickled code; raises `DataError` if it cannot be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a readable checkpoint ({error})") from error
    if not isinstance(state, dict):
        raise DataError(f"{path}: not a checkpoint")
    return state


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON under a temporary name, then rename."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(path)


class MetricsLog:
    """``metrics.jsonl``: one JSON object a line, each with its ``step``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        """Add one line."""
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Every whole line; one cut short by a crash is left out."""
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return records

    def rewind(self, step: int) -> None:
        """Forget what was logged after ``step``, which a resumed run will log again."""
        kept = [record for record in self.read() if record["step"] <= step]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
        partial.replace(self.path)
