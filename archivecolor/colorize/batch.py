"""Several films and stills, or whole folders of them, one after another; a bad file does not stop the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from archivecolor.colorize.engine import Engine
from archivecolor.colorize.pipeline import ColorizeReport, Progress, colorize_film
from archivecolor.colorize.stills import colorize_still
from archivecolor.config import ColorizeConfig
from archivecolor.errors import ArchiveColorError, ConfigError, DataError, FilmEncodeError
from archivecolor.film import OutputSettings, default_extension, is_still, probe, read_still

FILM_EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "gxf", "m2ts", "m2v", "m4v", "mkv", "mov", "mp4", "mpeg"),
        *("mpg", "mts", "mxf", "nut", "ogm", "ogv", "qt", "rm", "ts", "vob", "webm", "wmv", "y4m"),
    )
)

State = Literal["coloured", "skipped", "failed"]


@dataclass(frozen=True)
class Job:
    """One file to colourise, and where to."""

    source: Path
    output: Path


@dataclass(frozen=True)
class JobResult:
    """What became of a job: its report when it was coloured, its error when it failed."""

    job: Job
    state: State
    report: ColorizeReport | None = None
    error: ArchiveColorError | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready mapping."""
        details = self.report.to_dict() if self.report else {}
        names = {"source": str(self.job.source), "output": str(self.job.output), "state": self.state}
        return {**details, **names, "error": str(self.error) if self.error else None}


def plan_jobs(inputs: Sequence[Path], output: Path, *, into_folder: bool = False) -> list[Job]:
    """What ``colorize INPUT... -o OUTPUT`` is to do.

    One file goes to the file ``output``, or into it where that is a folder or ``into_folder`` says so. Several
    inputs, and folders, go into the folder ``output``; a folder is searched through and its tree mirrored. Names
    stay, and so does a film's extension where the container is one that archivecolor writes (.mkv otherwise).

    Raises:
        ConfigError: an output would replace a source, or several inputs are to go to one file.
        DataError: a folder holds no film or still, or an input does not exist.
    """
    for path in inputs:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
    if not (into_folder or len(inputs) > 1 or inputs[0].is_dir() or output.is_dir()):
        jobs = [Job(inputs[0], output)]
    else:
        if output.is_file():
            raise ConfigError(f"{output}: is a file; several films need a folder as output")
        found = [pair for path in inputs for pair in _films_in(path, output)]
        jobs = _name_outputs(found, output)
    for job in jobs:
        if job.output.exists() and job.output.samefile(job.source):
            raise ConfigError(f"{job.source}: the output is the source itself; choose another name or folder")
    return jobs


def _films_in(path: Path, output: Path) -> Iterator[tuple[Path, Path]]:
    """Every film or still in ``path``, with its place relative to it; never what an earlier run wrote."""
    if path.is_file():
        yield path, Path(path.name)
        return
    known = FILM_EXTENSIONS
    inside = output.resolve()
    found = False
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        if any(part.startswith(".") for part in relative.parts) or not file.is_file():
            continue
        if inside != path.resolve() and inside in file.resolve().parents:
            continue
        if file.suffix.lower() in known or is_still(file):
            found = True
            yield file, relative
    if not found:
        raise DataError(f"{path}: holds no films or stills")


def _name_outputs(found: Sequence[tuple[Path, Path]], output: Path) -> list[Job]:
    names = []
    for source, relative in found:
        extension = source.suffix if is_still(source) else default_extension(source)
        names.append(output / relative.with_suffix(extension))
    # reel.avi and reel.mpg would both become reel.mkv: then both keep their whole name.
    jobs = []
    for (source, relative), name in zip(found, names, strict=True):
        if names.count(name) > 1 and name.name != relative.name:
            name = name.with_name(relative.name + name.suffix)
        jobs.append(Job(source, name))
    return jobs


def run_job(
    job: Job,
    engine: Engine,
    config: ColorizeConfig,
    settings: OutputSettings,
    *,
    overwrite: bool,
    skip_whole: bool,
    progress: Progress | None = None,
) -> JobResult:
    """Do one job; library errors come back in the result, everything else is raised.

    An output that is there already is skipped if it is whole and ``skip_whole`` is set, replaced if ``overwrite`` is,
    and an error otherwise.
    """
    try:
        if job.output.exists() and not overwrite:
            if skip_whole and is_whole(job, config):
                return JobResult(job, "skipped")
            if not skip_whole:
                raise FilmEncodeError(f"{job.output}: is there already; use --overwrite to replace it")
        _make_folder(job.output.parent)
        if is_still(job.source):
            report = colorize_still(job.source, job.output, engine, config)
        else:
            report = colorize_film(job.source, job.output, engine, config, settings, progress=progress)
        return JobResult(job, "coloured", report)
    except ArchiveColorError as error:
        return JobResult(job, "failed", error=error)


def is_whole(job: Job, config: ColorizeConfig) -> bool:
    """Whether the job's output can be opened and lasts as long as its source, to within a frame."""
    try:
        if is_still(job.source):
            return read_still(job.output).luma.shape == read_still(job.source).luma.shape
        done, source = probe(job.output), probe(job.source)
    except ArchiveColorError:
        return False
    if done.duration_s is None or source.duration_s is None:
        return True
    end_s = min(config.end_s if config.end_s is not None else source.duration_s, source.duration_s)
    expected_s = end_s - (config.start_s or 0.0)
    frame_s = float(1 / source.average_rate) if source.average_rate else 0.1
    return abs(done.duration_s - expected_s) <= max(2 * frame_s, 0.1)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FilmEncodeError(f"{folder}: cannot be made ({error.strerror})") from error
