"""What a worker has to know of a part, wherever it is, and what it does with it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from archivecolor.colorize.engine import Engine
from archivecolor.colorize.journal import Journal
from archivecolor.colorize.parts import FilmPlan, analyse, colour_part
from archivecolor.colorize.progress import NoProgress
from archivecolor.colorize.space import Space
from archivecolor.colorize.work import Part
from archivecolor.config import ColorizeConfig
from archivecolor.errors import ArchiveColorError, BusyError

_TAKE_OVER_S: Final = 60.0
"""How long to wait for one that has lost touch to let go of its part."""


class FileStop:
    """A wish to stop that reaches every machine with the same storage; `ask` makes it known."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_set(self) -> bool:
        """Whether it was asked for."""
        return self.path.exists()

    def ask(self) -> None:
        """Ask for it."""
        self.path.touch()


@dataclass(frozen=True)
class PartTask:
    """All that a worker, wherever it is, has to know of a part."""

    film: FilmPlan
    part: Part
    folder: Path
    segment_frames: int
    wait_for_space_s: float


def work_on_part(task: PartTask, device: str) -> ArchiveColorError | None:
    """Colour what is missing of a part on this machine's ``device``; what went wrong is given back, not raised."""
    folder = Journal.of_part(task.folder, task.part.number).folder
    asked = FileStop(task.folder / "stop")
    film = replace(task.film, config=replace(task.film.config, device=device))
    space = Space(task.folder, NoProgress().say, asked, task.wait_for_space_s)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock", timeout=_TAKE_OVER_S):
            colour_part(
                film,
                task.part,
                Journal(folder),
                task.segment_frames,
                engine_of(film.config),
                analyse(film.info),
                progress=NoProgress(),
                stop=asked,
                space=space,
            )
    except Timeout:
        return BusyError(f"{film.output}: part {task.part.number} is still held by another worker; run again")
    except ArchiveColorError as error:
        return error
    return None


@functools.cache
def engine_of(config: ColorizeConfig) -> Engine:
    """The worker's engine, which it keeps from part to part."""
    return Engine(config)
