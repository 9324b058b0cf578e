"""Writing one segment of a film, checked and on disk before it is called finished."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av.error
import numpy as np
import numpy.typing as npt

from archivecolor.disk import Patience, discard, file_sha256, patiently, settle, sync
from archivecolor.errors import FilmEncodeError, FilmOpenError
from archivecolor.film.encoder import PictureEncoder, open_encoder
from archivecolor.film.info import FilmInfo
from archivecolor.film.opening import in_words
from archivecolor.film.profiles import OutputPlan
from archivecolor.film.segments import SegmentFile, SegmentFileWriter
from archivecolor.film.sequence_writer import SequenceWriter
from archivecolor.film.sequences import read_frame

Plane = npt.NDArray[np.generic]
_UNFINISHED: Final = ".partial"


@dataclass(frozen=True)
class Written:
    """What a finished segment holds on disk: ``sha256`` of the file, or of a folder's files one after the other."""

    frames: int
    size_bytes: int
    sha256: str


class FilmSegmentWriter:
    """Encode frames into the segment file ``path``, which has that name once `finish` returns.

    Interface as `FilmWriter`'s; ``wait`` is for a full disk.
    """

    def __init__(self, path: Path, info: FilmInfo, plan: OutputPlan, offset_s: Fraction, wait: Patience) -> None:
        self.path, self.frames = path, 0
        self.warnings: list[str] = []
        self._partial = path.with_name(path.name + _UNFINISHED)
        self._wait = wait
        try:
            context = open_encoder(info, plan)
            self._encoder = PictureEncoder(context, info, plan, offset_s)
        except (av.error.FFmpegError, ValueError) as error:
            raise FilmEncodeError(f"{path}: {plan.encoder} does not start: {in_words(error)}") from error
        self._file = SegmentFileWriter(self._partial, context, wait)

    def write(
        self, y: Plane, cb: Plane, cr: Plane, pts_ticks: int, time_base: Fraction, duration_ticks: int | None
    ) -> None:
        """Encode one frame; see `FilmWriter.write`."""
        try:
            packets = self._encoder.encode(y, cb, cr, pts_ticks, time_base, duration_ticks)
        except av.error.FFmpegError as error:
            raise self._failure(error) from error
        for packet in packets:
            self._file.write(packet)
        self.frames += 1

    def finish(self) -> Written:
        """Encode what is left, put it on disk, read it back and give it its name; raises `FilmEncodeError`."""
        try:
            for packet in self._encoder.flush():
                self._file.write(packet)
            self._file.close()
            count = SegmentFile.open(self._partial).count_frames()
            if count != self.frames or file_sha256(self._partial) != self._file.sha256:
                raise FilmEncodeError(
                    f"{self.path}: {count} of {self.frames} frames can be read back as they were written; "
                    "is the disk sound?"
                )
            settle(self._partial, self.path, self._wait)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error
        return Written(self.frames, self._file.size_bytes, self._file.sha256)

    def abort(self) -> None:
        """Leave nothing of it."""
        self._file.abort()
        self._partial.unlink(missing_ok=True)

    def _failure(self, error: Exception) -> FilmEncodeError:
        return FilmEncodeError(f"{self.path}: cannot be written: {in_words(error)}")


class SequenceSegmentWriter:
    """Write frames into the folder ``path`` as numbered files; interface as `FilmSegmentWriter`'s."""

    def __init__(self, path: Path, pattern: Path, info: FilmInfo, plan: OutputPlan, wait: Patience) -> None:
        self.path = path
        self._partial = path.with_name(path.name + _UNFINISHED)
        self._wait = wait
        discard(self._partial)
        self._writer = SequenceWriter(self._partial, pattern, info, plan)

    @property
    def frames(self) -> int:
        """How many were written."""
        return self._writer.frames

    @property
    def warnings(self) -> list[str]:
        """Whole sentences."""
        return self._writer.warnings

    def write(
        self, y: Plane, cb: Plane, cr: Plane, pts_ticks: int, time_base: Fraction, duration_ticks: int | None
    ) -> None:
        """Write one frame; see `SequenceWriter.write`."""

        def once() -> None:
            try:
                self._writer.write(y, cb, cr, pts_ticks, time_base, duration_ticks)
            except FilmEncodeError as error:
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from error
                raise

        patiently(self._wait, once)

    def finish(self) -> Written:
        """Put the files on disk, count them and decode the last; see `FilmSegmentWriter.finish`."""
        files = sorted(self._partial.iterdir())
        try:
            for file in files:
                sync(file)
            if len(files) != self.frames or not all(file.stat().st_size for file in files):
                raise FilmEncodeError(
                    f"{self.path}: {len(files)} of {self.frames} frames are there; is the disk sound?"
                )
            if files:
                read_frame(files[-1])
            size, digest = sum(file.stat().st_size for file in files), file_sha256(*files)
            settle(self._partial, self.path, self._wait)
        except (OSError, FilmOpenError) as error:
            raise FilmEncodeError(f"{self.path}: cannot be written: {in_words(error)}") from error
        return Written(self.frames, size, digest)

    def abort(self) -> None:
        """Leave nothing of it."""
        discard(self._partial)


def is_as_written(path: Path, written: Written) -> bool:
    """Whether a finished segment is still there as it was."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files) == written.size_bytes and (
            file_sha256(*files) == written.sha256
        )
    except OSError:
        return False
