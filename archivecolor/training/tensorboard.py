"""TensorBoard events beside the metrics file, where tensorboard is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class EventLog:
    """Writes a metrics record's numbers as scalars: loss terms under ``train/``, scores under ``validation/``."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    @classmethod
    def open(cls, folder: Path, step: int) -> EventLog | None:
        """Events in ``folder``, hiding what an earlier start logged from ``step`` on; None without tensorboard."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
        return cls(SummaryWriter(log_dir=str(folder), purge_step=step + 1))

    def add(self, record: dict[str, Any]) -> None:
        """One record of ``metrics.jsonl``."""
        step = record["step"]
        for name, value in record.items():
            if name == "validation":
                for score, number in value.items():
                    self._writer.add_scalar(f"validation/{score}", number, step)
            elif name == "warning":
                self._writer.add_text("warning", value, step)
            elif name not in ("step", "images"):
                self._writer.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()
