"""The catalogue of a folder of outputs: an SQLite file that says of every film what became of it.

Plain ``sqlite3 OUT/catalogue.sqlite3 'select * from films'`` reads it at any time, while work goes on too.
"""

from __future__ import annotations

import errno
import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from archivecolor.colorize.lock import is_held
from archivecolor.errors import DataError, FilmEncodeError

NAME: Final = "catalogue.sqlite3"
_VERSION: Final = 1
_BUSY_S: Final = 60.0
_SCHEMA: Final = """
create table if not exists films (
    output text primary key,        -- relative to the folder of the catalogue
    source text not null,           -- where it lay when it was last seen
    state text not null,            -- waiting, working, coloured, failed, stopped
    attempts integer not null default 0,
    error text,
    frames integer,                 -- written
    seconds real,                   -- of the last attempt
    queued text, started text, finished text,   -- UTC
    source_bytes integer, source_mtime_ns integer, source_sha256 text,
    output_bytes integer, output_mtime_ns integer,
    settings text,                  -- fingerprint of all that decides what the output looks like
    worker text,                    -- host:process of the last attempt
    work text                       -- its work folder
) without rowid;
create index if not exists films_by_size on films (source_bytes);
"""

FilmState = Literal["waiting", "working", "coloured", "failed", "stopped"]


@dataclass(frozen=True)
class Entry:
    """A row: what is known of one output. Times are ISO 8601 in UTC; sizes in bytes."""

    output: str
    source: str
    state: str = "waiting"
    attempts: int = 0
    error: str | None = None
    frames: int | None = None
    seconds: float | None = None
    queued: str | None = None
    started: str | None = None
    finished: str | None = None
    source_bytes: int | None = None
    source_mtime_ns: int | None = None
    source_sha256: str | None = None
    output_bytes: int | None = None
    output_mtime_ns: int | None = None
    settings: str | None = None
    worker: str | None = None
    work: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready mapping."""
        return asdict(self)

    @property
    def state_now(self) -> str:
        """The state, ``interrupted`` where it says that someone is at work on it and nobody is."""
        abandoned = self.state == "working" and (self.work is None or not is_held(Path(self.work)))
        return "interrupted" if abandoned else self.state

    def has_source(self, source: Path) -> bool:
        """Whether ``source`` is there with the size and the time of change that it had."""
        return _is_as_it_was(source, self.source_bytes, self.source_mtime_ns)

    def has_output(self, output: Path) -> bool:
        """Whether ``output`` is there as it was left."""
        return _is_as_it_was(output, self.output_bytes, self.output_mtime_ns)


def _is_as_it_was(path: Path, size_bytes: int | None, mtime_ns: int | None) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (size_bytes, mtime_ns)


_COLUMNS: Final = tuple(field.name for field in fields(Entry))


def _to_sql(value: Any) -> Any:
    """SQLite's text is UTF-8; a name on disk that is not goes in as the bytes that it is."""
    if not isinstance(value, str):
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return os.fsencode(value)
    return value


def _entry(row: tuple[Any, ...]) -> Entry:
    values: list[Any] = [os.fsdecode(value) if isinstance(value, bytes) else value for value in row]
    return Entry(*values)


def now() -> str:
    """The time, as the catalogue has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def this_worker() -> str:
    """This process, among all that work on a folder."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Catalogue:
    """The catalogue in ``folder``; several processes may have it open. Use as a context manager.

    Raises:
        DataError: there is none to read, or it is not one that this version knows.
        FilmEncodeError: it cannot be written.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = folder
        self.path = folder / NAME
        if read_only and not self.path.exists():
            raise DataError(f"{folder}: has no {NAME}; is it the output of a folder job?")
        with self._errors(read_only):
            # A reader too has to take back what a process that was killed has half written; SQLite falls back to
            # reading only where the file is write protected.
            uri = f"{self.path.absolute().as_uri()}?mode={'rw' if read_only else 'rwc'}"
            self._database = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
            version = self._database.execute("pragma user_version").fetchone()[0]
            if version not in ((_VERSION,) if read_only else (0, _VERSION)):
                raise DataError(f"{self.path}: is not a catalogue that this version of archivecolor knows")
            if not read_only:
                self._database.executescript(f"begin immediate; {_SCHEMA} pragma user_version = {_VERSION}; commit;")

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def _errors(self, reading: bool = False) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if reading or "not a database" in str(error):
                raise DataError(f"{self.path}: cannot be read ({error})") from error
            is_full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            cause = OSError(errno.ENOSPC, str(error)) if is_full else error
            raise FilmEncodeError(f"{self.path}: cannot be written ({error})") from cause

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make what is done in the block one change: all of it or nothing, and one write to the disk."""
        with self._errors():
            self._database.execute("begin immediate")
            try:
                yield
                self._database.execute("commit")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("rollback")
                raise

    def entries(self) -> list[Entry]:
        """All of them, by name."""
        with self._errors(reading=True):
            rows = self._database.execute(f"select {', '.join(_COLUMNS)} from films order by output").fetchall()
        return [_entry(row) for row in rows]

    def find(self, output: str) -> Entry | None:
        """What is known of an output."""
        with self._errors(reading=True):
            query = f"select {', '.join(_COLUMNS)} from films where output = ?"
            row = self._database.execute(query, (_to_sql(output),)).fetchone()
        return None if row is None else _entry(row)

    def of_size(self, source_bytes: int) -> list[Entry]:
        """Outputs that were made, or begun, of a source of this size."""
        with self._errors(reading=True):
            query = f"select {', '.join(_COLUMNS)} from films where source_bytes = ?"
            return [_entry(row) for row in self._database.execute(query, (source_bytes,)).fetchall()]

    def put(self, entry: Entry) -> None:
        """Add or replace an entry."""
        with self._errors():
            marks = ", ".join("?" * len(_COLUMNS))
            values = tuple(_to_sql(getattr(entry, name)) for name in _COLUMNS)
            self._database.execute(f"insert or replace into films ({', '.join(_COLUMNS)}) values ({marks})", values)

    def change(self, output: str, /, **values: Any) -> None:
        """Change some columns of an entry, be it its ``output``."""
        assert set(values) <= set(_COLUMNS)
        with self._errors():
            names = ", ".join(f"{name} = ?" for name in values)
            self._database.execute(
                f"update films set {names} where output = ?", tuple(map(_to_sql, [*values.values(), output]))
            )

    def waiting(self) -> list[Entry]:
        """Those that nobody has begun."""
        with self._errors(reading=True):
            query = f"select {', '.join(_COLUMNS)} from films where state = 'waiting'"
            return [_entry(row) for row in self._database.execute(query).fetchall()]

    def remove(self, output: str) -> None:
        """Forget an entry."""
        with self._errors():
            self._database.execute("delete from films where output = ?", (_to_sql(output),))
