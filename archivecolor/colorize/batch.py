"""Several films and stills, or whole folders of them, one after another; a bad file does not stop the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from archivecolor.colorize.done import is_made
from archivecolor.colorize.engine import Engine
from archivecolor.colorize.pipeline import colorize_film
from archivecolor.colorize.places import is_sequence, place_of
from archivecolor.colorize.progress import NoProgress, Progress, Stop, never
from archivecolor.colorize.report import ColorizeReport
from archivecolor.colorize.sidecar import Model, refuse_foreign_folder, refuse_foreign_sidecar
from archivecolor.colorize.space import Space
from archivecolor.colorize.stills import colorize_still
from archivecolor.colorize.work import clear_finished, has_work
from archivecolor.config import ColorizeConfig, WorkConfig
from archivecolor.errors import (
    ArchiveColorError,
    BusyError,
    ConfigError,
    DataError,
    FilmEncodeError,
    StoppedError,
    may_pass,
    missing,
)
from archivecolor.film import (
    CONTAINERS,
    SEQUENCE_EXTENSIONS,
    OutputSettings,
    default_extension,
    holds_frames,
    is_pattern,
    is_still,
    sequence_files,
)

log = logging.getLogger(__name__)

FILM_EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "gxf", "m2ts", "m2v", "m4v", "mkv", "mov", "mp4", "mpeg"),
        *("mpg", "mts", "mxf", "nut", "ogm", "ogv", "qt", "rm", "ts", "vob", "webm", "wmv", "y4m"),
    )
)

State = Literal["coloured", "skipped", "failed", "stopped", "elsewhere"]
"""``stopped`` on request, to go on later; ``elsewhere``: another run is at work on it."""


@dataclass(frozen=True)
class Job:
    """One file to colourise, and where to."""

    source: Path
    output: Path


@dataclass(frozen=True)
class JobResult:
    """What became of a job: its report when it was coloured, its error when it failed, which ``may_pass`` or not."""

    job: Job
    state: State
    report: ColorizeReport | None = None
    error: ArchiveColorError | None = None
    may_pass: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready mapping."""
        details = self.report.to_dict() if self.report else {}
        names = {"source": str(self.job.source), "output": str(self.job.output), "state": self.state}
        return {**details, **names, "error": str(self.error) if self.error else None}


def plan_jobs(
    inputs: Sequence[Path],
    output: Path,
    *,
    into_folder: bool = False,
    profile: str | None = None,
    as_sequence: bool = False,
    select: Callable[[Path], bool] | None = None,
) -> list[Job]:
    """What ``colorize INPUT... -o OUTPUT`` is to do.

    One file goes to the file ``output``, or into it where that is a folder or ``into_folder`` says so. Several
    inputs, and folders, go into the folder ``output``; a folder is searched through and its tree mirrored. Names
    stay, and so does a film's extension where ``profile`` (access by default) is kept well in that container. A
    pattern, and with ``as_sequence`` a folder, is one image sequence. ``select`` says which files of a folder are
    meant, by their path within it.

    Raises:
        ConfigError: an output would replace a source or another output, or several inputs are to go to one file.
        DataError: a folder holds no film or still, or an input does not exist.
    """
    if len(inputs) == 1 and (is_pattern(inputs[0]) or (inputs[0].is_dir() and as_sequence)):
        return [_sequence_job(inputs[0], output)]
    for path in inputs:
        if not path.exists():
            raise DataError(missing(path))
    if not (into_folder or len(inputs) > 1 or inputs[0].is_dir() or output.is_dir()):
        jobs = [Job(inputs[0], output)]
    else:
        if output.is_file() or (not output.is_dir() and output.suffix.lower() in CONTAINERS):
            raise ConfigError(f"{output}: names a file; several films, or a folder of them, need a folder as output")
        found = {file.resolve(): (file, place) for path in inputs for file, place in _films_in(path, output, select)}
        jobs = _name_outputs(list(found.values()), output, profile)
    _refuse_collisions(jobs)
    return jobs


def _sequence_job(source: Path, output: Path) -> Job:
    """An image sequence goes to a film, to a pattern, or to a folder under the names that its frames have."""
    if not is_pattern(output) and (kind := output.suffix.lower()) not in CONTAINERS:
        if kind in FILM_EXTENSIONS | SEQUENCE_EXTENSIONS and not output.is_dir():
            raise ConfigError(
                f"{output}: numbered frames become a film ({', '.join(CONTAINERS)}), or frames with a number in the "
                f"name, e.g. {output.with_suffix('')}/%06d.png"
            )
        first = next(iter(sequence_files(source).values()))
        digits = len(first.stem) - len(first.stem.rstrip("0123456789"))
        output = output / f"{first.stem[:-digits]}%0{digits}d{first.suffix}"
    folder = source.parent if is_pattern(source) else source
    if is_pattern(output) and output.parent.resolve() == folder.resolve():
        raise ConfigError(f"{source}: the output would go into its own folder; choose another one")
    return Job(source, output)


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    sources = {job.source.resolve(): job.source for job in jobs}
    outputs: dict[str, Path] = {}
    for job in jobs:
        if (source := sources.get(job.output.resolve())) is not None:
            what = "the source itself" if source == job.source else f"another source, {source}"
            raise ConfigError(f"{job.source}: the output {job.output} is {what}; choose another name or folder")
        if job.output.exists() and job.output.samefile(job.source):
            raise ConfigError(f"{job.source}: the output is the source itself; choose another name or folder")
        name = str(job.output.resolve()).casefold()  # Film.mp4 and film.mp4 are one file on macOS and Windows
        if (other := outputs.setdefault(name, job.source)) != job.source:
            raise ConfigError(f"{other} and {job.source} would both become {job.output}; colourise them separately")


def _films_in(path: Path, output: Path, select: Callable[[Path], bool] | None) -> Iterator[tuple[Path, Path]]:
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
        if select is not None and not select(relative):
            continue
        if inside != path.resolve() and inside in file.resolve().parents:
            continue
        if file.suffix.lower() in known or is_still(file):
            found = True
            yield file, relative
    if not found:
        asked_for = " that are asked for" if select is not None else ""
        frames = "; numbered frames are one film with --fps, e.g. --fps 24" if holds_frames(path) else ""
        raise DataError(f"{path}: holds no films or stills{asked_for}{frames}")


def _name_outputs(found: Sequence[tuple[Path, Path]], output: Path, profile: str | None) -> list[Job]:
    names = []
    for source, relative in found:
        extension = source.suffix if is_still(source) else default_extension(source, profile)
        names.append(output / relative.with_suffix(extension))
    # reel.avi and reel.mpg would both become reel.mkv: then both keep their whole name.
    jobs = []
    for (source, relative), name in zip(found, names, strict=True):
        if names.count(name) > 1 and name.name != relative.name:
            name = name.with_name(relative.name + name.suffix)
        jobs.append(Job(source, name))
    return jobs


class Craft(Protocol):
    """How a film and a still are made."""

    @property
    def model(self) -> Model:
        """The weights that do it."""

    def film(
        self,
        source: Path,
        output: Path,
        config: ColorizeConfig,
        settings: OutputSettings,
        *,
        work: WorkConfig,
        progress: Progress,
        stop: Stop,
    ) -> ColorizeReport:
        """As `archivecolor.colorize.pipeline.colorize_film`."""

    def still(self, source: Path, output: Path, config: ColorizeConfig) -> ColorizeReport:
        """As `archivecolor.colorize.stills.colorize_still`."""


class EngineCraft:
    """Films and stills are made here, one at a time."""

    def __init__(self, engine: Engine) -> None:
        self.model = engine

    def film(
        self,
        source: Path,
        output: Path,
        config: ColorizeConfig,
        settings: OutputSettings,
        *,
        work: WorkConfig,
        progress: Progress,
        stop: Stop,
    ) -> ColorizeReport:
        """See `Craft`."""
        return colorize_film(source, output, self.model, config, settings, work=work, progress=progress, stop=stop)

    def still(self, source: Path, output: Path, config: ColorizeConfig) -> ColorizeReport:
        """See `Craft`."""
        return colorize_still(source, output, self.model, config)


def run_job(
    job: Job,
    craft: Craft,
    config: ColorizeConfig,
    settings: OutputSettings,
    *,
    overwrite: bool,
    go_on: bool,
    work: WorkConfig | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> JobResult:
    """Do one job; errors come back in the result, so that the next job can follow.

    An output that is there already is replaced if ``overwrite`` is set. Otherwise one that was made of this very source
    with these settings, or with ``go_on`` any of ours, is skipped if it is whole and made again if it is not; another
    one is an error. Work that was interrupted goes on.
    """
    work = work or WorkConfig()
    try:
        place = place_of(job.output)
        clear_finished(place, work)
        is_to_be_made = overwrite or has_work(place, work)
        if not is_to_be_made and is_made(job.source, job.output, craft.model, config, settings, go_on=go_on):
            return JobResult(job, "skipped")
        if place != job.output:
            refuse_foreign_folder(place)
        refuse_foreign_sidecar(place)
        _make_folder(place.parent)
        progress, stop = progress or NoProgress(), stop or never()
        if is_still(job.source) and not is_sequence(job.source):
            space = Space(place.parent, progress.say, stop, work.wait_for_space_s)
            report = space.patiently(lambda: craft.still(job.source, job.output, config))
        else:
            report = craft.film(job.source, job.output, config, settings, work=work, progress=progress, stop=stop)
        return JobResult(job, "coloured", report)
    except StoppedError as error:
        return JobResult(job, "stopped", error=error)
    except BusyError as error:
        return JobResult(job, "elsewhere", error=error)
    except ArchiveColorError as error:
        log.debug("%s failed", job.source, exc_info=True)
        return JobResult(job, "failed", error=error, may_pass=may_pass(error))
    except Exception as error:
        log.debug("%s failed", job.source, exc_info=True)
        words = f"{job.source}: unexpected {type(error).__name__} ({' '.join(str(error).split())}); "
        return JobResult(job, "failed", error=ArchiveColorError(words + "--debug shows where, please report it"))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FilmEncodeError(
            f"{folder}: cannot be made ({error.strerror}); choose another place for the output"
        ) from error
