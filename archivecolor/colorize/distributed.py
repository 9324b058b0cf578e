"""One film by several workers: it is planned as parts, each worker makes the segments of one, and they are joined here.

Parts are planned by time, which takes no look at the film; each then begins at the first shot from its time on, and
ends before the first from the next part's on. Both neighbours find that shot by the same rule, so they meet without
having talked. A part has its own journal on storage that all workers share: whoever takes it over goes on where that
ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from archivecolor.colorize.batch import EngineCraft, Job, JobResult, run_job
from archivecolor.colorize.cluster import RayCrew
from archivecolor.colorize.crew import Alone, Crew, Follow, Processes, Task, workers_by_default
from archivecolor.colorize.journal import Journal
from archivecolor.colorize.part_task import FileStop, PartTask, engine_of, work_on_part
from archivecolor.colorize.parts import FilmPlan, frames_expected
from archivecolor.colorize.pipeline import make_film
from archivecolor.colorize.progress import Progress, Stop
from archivecolor.colorize.report import ColorizeReport
from archivecolor.colorize.sidecar import WeightsFile
from archivecolor.colorize.space import Space
from archivecolor.colorize.work import Part, WorkFolder
from archivecolor.colorize.worker_process import device_of_this_worker
from archivecolor.config import ColorizeConfig, WorkConfig
from archivecolor.errors import ArchiveColorError, StoppedError
from archivecolor.film import OutputSettings

_LOOK_EVERY_S: Final = 0.5
_PARTS_PER_WORKER: Final = 4
"""So that the last worker is not waited for long."""
_SEGMENTS_IN_A_PART: Final = 3
_FILMS_AT_A_TIME: Final = 4


class PartCrew(Protocol):
    """Workers who colour parts."""

    @property
    def workers(self) -> int:
        """How many."""

    def colour(self, task: PartTask) -> Future[ArchiveColorError | None]:
        """Have a part coloured; the result is what went wrong, None when it is done."""


def plan_parts(film: FilmPlan, workers: int, segment_frames: int) -> tuple[Part, ...]:
    """Parts of equal length in time, more of them than workers, none shorter than a few segments."""
    frames, rate = frames_expected(film.info, film.config), film.info.average_rate
    if frames is None or rate is None:
        return (Part(0),)
    count = max(1, min(_PARTS_PER_WORKER * workers, frames // (_SEGMENTS_IN_A_PART * segment_frames)))
    begin_s = film.info.first_pts_ticks * film.info.time_base + Fraction(film.config.start_s or 0)
    cuts: list[Fraction | None] = [
        (begin_s + Fraction(number * frames, count) / rate).limit_denominator(1000) for number in range(1, count)
    ]
    return tuple(
        Part(number, start, end) for number, (start, end) in enumerate(zip([None, *cuts], [*cuts, None], strict=True))
    )


class ProcessCrew:
    """A part for each of several worker processes of this machine."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.workers = processes.workers

    def colour(self, task: PartTask) -> Future[ArchiveColorError | None]:
        """See `PartCrew`."""
        return self._processes.call(_work_in_process, task)


def _work_in_process(task: PartTask) -> ArchiveColorError | None:
    return work_on_part(task, device_of_this_worker())


class PartsCraft:
    """Makes films with the help of a crew, and stills by itself; see `archivecolor.colorize.batch.Craft`."""

    def __init__(self, crew: PartCrew, config: ColorizeConfig) -> None:
        self._crew = crew
        self.model = WeightsFile.find(config.weights)

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

        def colour(film: FilmPlan, folder: WorkFolder, _: object, space: Space) -> None:
            self._colour(film, folder, work, progress, stop)

        return make_film(
            source,
            output,
            self.model,
            config,
            settings,
            work=work,
            progress=progress,
            stop=stop,
            colour=colour,
            plan=lambda film: plan_parts(film, self._crew.workers, work.segment_frames),
        )

    def _colour(self, film: FilmPlan, folder: WorkFolder, work: WorkConfig, progress: Progress, stop: Stop) -> None:
        """Hand the parts out and wait for them, telling how far they are by their journals."""
        asked = FileStop(folder.path / "stop")
        asked.path.unlink(missing_ok=True)
        journals = [folder.journal(part) for part in folder.parts]
        left = [part for part in folder.parts if not _is_done(folder.journal(part))]
        running = {
            self._crew.colour(PartTask(film, part, folder.path, folder.segment_frames, work.wait_for_space_s))
            for part in left
        }
        total = frames_expected(film.info, film.config)
        errors: list[ArchiveColorError] = []
        while running:
            done, running = wait(running, timeout=_LOOK_EVERY_S, return_when=FIRST_COMPLETED)
            errors += [error for future in done if (error := _error_of(future)) is not None]
            if (stop.is_set() or errors) and not asked.is_set():
                asked.ask()
            written = sum(segment.frames for journal in journals for segment in journal.read())
            progress.update(written, total, f"{len(running)} parts to go")
        if stop.is_set() and not all(map(_is_done, journals)):
            raise StoppedError(f"{film.output}: stopped; the same command goes on from there")
        for error in sorted(errors, key=lambda error: isinstance(error, StoppedError)):
            raise error

    def still(self, source: Path, output: Path, config: ColorizeConfig) -> ColorizeReport:
        """As `archivecolor.colorize.stills.colorize_still`."""
        return EngineCraft(engine_of(config)).still(source, output, config)


def _error_of(part: Future[ArchiveColorError | None]) -> ArchiveColorError | None:
    try:
        return part.result()
    except ArchiveColorError as error:
        return error


def _is_done(journal: Journal) -> bool:
    segments = journal.read()
    return bool(segments) and segments[-1].ends_part


class InParts:
    """Does jobs by handing their parts to a crew, ``films`` of them at a time; use as a context manager."""

    def __init__(self, crew: PartCrew, task: Task, stop: Stop, follow: Follow, films: int = 1) -> None:
        self.workers = films
        self._craft = PartsCraft(crew, task.config)
        self._task, self._stop, self._follow = task, stop, follow
        self._threads = ThreadPoolExecutor(films, "film")

    def __enter__(self) -> InParts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=error is None, cancel_futures=True)

    def submit(self, job: Job) -> Future[JobResult]:
        """Have the job done."""
        task = self._task
        return self._threads.submit(
            run_job,
            job,
            self._craft,
            task.config,
            task.settings,
            overwrite=task.overwrite,
            go_on=task.go_on,
            work=task.work,
            progress=self._follow(job),
            stop=self._stop,
        )


@contextmanager
def open_crew(
    task: Task, stop: Stop, follow: Follow, *, several: bool, workers: int | None, cluster: str | None
) -> Iterator[Crew]:
    """The crew for these jobs: a cluster's, several processes for ``several`` films or for the only one, or none.

    ``workers`` is how many processes, by default one a GPU.
    """
    with ExitStack() as stack:
        count = workers or workers_by_default(task.config.device)
        if cluster is not None:
            ray_crew = stack.enter_context(RayCrew(cluster))
            yield stack.enter_context(InParts(ray_crew, task, stop, follow, _FILMS_AT_A_TIME if several else 1))
        elif count == 1:
            yield Alone(task, stop, follow)
        else:
            processes = stack.enter_context(Processes(count, task, stop, follow))
            parts = None if several else InParts(ProcessCrew(processes), task, stop, follow)
            yield processes if parts is None else stack.enter_context(parts)
