"""What became of one film or still."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archivecolor.colorize.mattes import Rectangle
from archivecolor.colorize.progress import Stage


@dataclass
class ColorizeReport:
    """What was done to one film or still, as shown and as kept beside it.

    ``frames_kept`` of the ``frames_written`` are the work of an earlier run that was interrupted, ``said_before``
    of the ``warnings`` were told before the work.
    """

    source: Path
    output: Path
    frames_read: int = 0
    frames_written: int = 0
    undecodable_packets: int = 0
    damaged_frames: int = 0
    repeated_frames: int = 0
    carried_frames: int = 0
    picture: Rectangle | None = None
    seconds: float = 0.0
    limiting: Stage | None = None
    frames_kept: int = 0
    device: str = ""
    precision: str = ""
    weights_sha256: str = ""
    warnings: list[str] = field(default_factory=list)
    said_before: list[str] = field(default_factory=list)

    @property
    def frames_per_s(self) -> float:
        """Frames written a second in this run, start-up included."""
        return (self.frames_written - self.frames_kept) / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready mapping."""
        picture = None
        if self.picture is not None:
            picture = {name: getattr(self.picture, name) for name in ("top", "bottom", "left", "right")}
        return {
            "source": str(self.source),
            "output": str(self.output),
            "frames_read": self.frames_read,
            "frames_written": self.frames_written,
            "frames_kept": self.frames_kept,
            "undecodable_packets": self.undecodable_packets,
            "damaged_frames": self.damaged_frames,
            "repeated_frames": self.repeated_frames,
            "carried_frames": self.carried_frames,
            "picture": picture,
            "seconds": round(self.seconds, 3),
            "frames_per_s": round(self.frames_per_s, 2),
            "limiting_stage": self.limiting,
            "device": self.device,
            "precision": self.precision,
            "weights_sha256": self.weights_sha256,
            "warnings": self.warnings,
        }
