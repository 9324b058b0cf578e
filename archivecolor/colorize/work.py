"""The folder that a film's work lies in until the film is whole: its lock, what is being made, and its parts.

.OUTPUT-0123abcd.work/
  lock                 held by whoever is at work; the system gives it back when that process ends, however it ends
  plan.json            which source, weights and settings the work is of, and its parts
  part-0000/
    journal.jsonl      one line for each finished segment
    000000.segment     encoded packets, or a folder of numbered pictures
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from filelock import FileLock, Timeout

from archivecolor.colorize.journal import Journal
from archivecolor.colorize.lock import NAME as LOCK_NAME
from archivecolor.colorize.lock import is_held
from archivecolor.config import WorkConfig
from archivecolor.disk import discard, sync
from archivecolor.errors import BusyError, FilmEncodeError

log = logging.getLogger(__name__)

_VERSION: Final = 1
_PLAN: Final = "plan.json"
_FINISHED: Final = "finished.json"


@dataclass(frozen=True)
class Part:
    """A stretch of a film that is coloured by one worker.

    It begins with the first shot from ``from_s`` on and ends before the first from ``until_s`` on, seconds on the
    source's clock; None for the film's own beginning and end.
    """

    number: int
    from_s: Fraction | None = None
    until_s: Fraction | None = None


WHOLE: Final = (Part(0),)


@dataclass(frozen=True)
class Identity:
    """What decides the colours and the coding of an output; work that was begun with another is of no use."""

    source: str
    weights: str
    settings: str
    version: str

    def changes_since(self, earlier: dict[str, Any]) -> list[str]:
        """In words, what is another now."""
        names = {"source": "source", "weights": "weights", "settings": "settings", "version": "archivecolor's version"}
        return [words for name, words in names.items() if earlier.get(name) != getattr(self, name)]


def work_folder(output: Path, config: WorkConfig) -> Path:
    """Where the work on ``output`` lies."""
    digest = hashlib.sha256(str(output.absolute()).encode(errors="surrogateescape")).hexdigest()
    parent = output.parent if config.work_dir is None else Path(config.work_dir)
    return parent / f".{output.name[:60]}-{digest[:8]}.work"


def has_work(output: Path, config: WorkConfig) -> bool:
    """Whether work on ``output`` was begun and not brought to its end."""
    return (work_folder(output, config) / _PLAN).exists()


def is_busy(output: Path, config: WorkConfig) -> bool:
    """Whether someone is at work on ``output`` now."""
    return is_held(work_folder(output, config))


def rename_work(output: Path, to: Path, config: WorkConfig) -> None:
    """Have work that was begun on ``output`` go on as that on ``to``, unless someone is at it or there is some there.

    Whether it is of the same source, `WorkFolder.begin` finds out.
    """
    begun = work_folder(output, config)
    if has_work(output, config) and not is_held(begun) and not has_work(to, config):
        target = work_folder(to, config)
        with contextlib.suppress(OSError):  # another disk, say: then it starts afresh
            target.parent.mkdir(parents=True, exist_ok=True)
            begun.rename(target)


def clear_finished(output: Path, config: WorkConfig) -> None:
    """Remove what a run left that made ``output`` whole."""
    if (work_folder(output, config) / _FINISHED).exists():
        with contextlib.suppress(BusyError), WorkFolder(output, config) as work:
            work.finished = True


def _read(plan: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(plan.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


class WorkFolder:
    """One output's work, locked; use as a context manager.

    At the end of the block the folder is removed where nothing in it is worth keeping: the film is whole, or no
    segment was finished.

    Raises:
        BusyError: another process has it.
        FilmEncodeError: the folder cannot be made.
    """

    def __init__(self, output: Path, config: WorkConfig) -> None:
        self.path = work_folder(output, config)
        self._output, self._keep = output, config.keep_work
        self.parts: tuple[Part, ...] = WHOLE
        self.segment_frames = config.segment_frames
        self.finished = False
        self._lock = FileLock(self.path / LOCK_NAME, timeout=0)

    def __enter__(self) -> WorkFolder:
        try:
            while not self._lock.is_locked:
                self.path.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # removed by the one that had it, just now
                    self._lock.acquire()
                    if not (self.path / LOCK_NAME).exists():
                        self._lock.release()
        except Timeout as error:
            raise BusyError(f"{self._output}: another run is at work on it") from error
        except OSError as error:
            raise FilmEncodeError(
                f"{self.path}: cannot be made ({error.strerror}); choose another --work-dir or output"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        worth_keeping = any(journal.stat().st_size for journal in self.path.glob("part-*/journal.jsonl"))
        if self.finished and (self.path / _PLAN).exists():
            (self.path / _PLAN).replace(self.path / _FINISHED)
        if not self._keep if self.finished else not worth_keeping:
            self._empty()
            (self.path / LOCK_NAME).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a file of someone else's in it
                self.path.rmdir()
        self._lock.release()

    def begin(self, identity: Identity, parts: Sequence[Part]) -> list[str]:
        """Go on with the work that is there if it is of the same film, or else begin afresh; says what has changed.

        The parts and the length of segments stay those that the work was begun with.
        """
        earlier = _read(self.path / _PLAN)
        changes = [] if earlier is None else identity.changes_since(earlier)
        if earlier is not None and not changes and earlier.get("plan_version") == _VERSION:
            self.segment_frames = earlier["segment_frames"]
            times = [[None if time is None else Fraction(time) for time in pair] for pair in earlier["parts"]]
            self.parts = tuple(Part(number, *pair) for number, pair in enumerate(times))
            return []
        self._empty()
        self.parts = tuple(parts)
        plan = {
            "plan_version": _VERSION,
            "output": str(self._output),
            **vars(identity),
            "segment_frames": self.segment_frames,
            "parts": [[part.from_s, part.until_s] for part in self.parts],
        }
        aside = self.path / "plan.new"
        try:
            aside.write_text(json.dumps(plan, default=str, indent=1), encoding="utf-8", errors="backslashreplace")
            sync(aside)
            aside.replace(self.path / _PLAN)
            sync(self.path)
        except OSError as error:
            raise FilmEncodeError(f"{aside}: cannot be written ({error.strerror})") from error
        return changes

    def journal(self, part: Part) -> Journal:
        """The journal in the part's folder."""
        return Journal.of_part(self.path, part.number)

    def _empty(self) -> None:
        """Remove all but the lock, and the mark of a finished film last."""
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name == _FINISHED):
            if entry.name != LOCK_NAME:
                discard(entry)
