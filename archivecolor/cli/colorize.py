"""``archivecolor colorize``."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archivecolor.cli.console import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    command_options,
    error_console,
    print_error,
    print_warning,
    progress_display,
    stop_on_signals,
)
from archivecolor.cli.options import TimeOfFilm, engine_options, output_options, shelf_options, work_options
from archivecolor.config import ColorizeConfig, WorkConfig

if TYPE_CHECKING:
    from archivecolor.colorize.batch import JobResult


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUTPUT",
    help="A file for one film or still; a folder, which mirrors the input's, for several.",
)
@engine_options
@click.option("--start", "start_s", type=TimeOfFilm(), help="Begin here: seconds, or [HH:]MM:SS[.fff].")
@click.option("--end", "end_s", type=TimeOfFilm(), help="Stop before here: seconds, or [HH:]MM:SS[.fff].")
@output_options
@click.option("--fps", metavar="RATE", help="Rate of an image sequence, e.g. 24, 23.976 or 24000/1001.")
@click.option("--overwrite", is_flag=True, help="Replace outputs that are there already.")
@shelf_options
@work_options
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON on standard output.")
@command_options
def colorize(
    inputs: tuple[Path, ...],
    output: str,
    profile: str | None,
    codec: str | None,
    crf: int | None,
    preset: str | None,
    pix_fmt: str | None,
    overwrite: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    workers: int | None,
    cluster: str | None,
    retries: int,
    watch: bool,
    work_dir: str | None,
    keep_work: bool,
    segment_frames: int,
    wait_for_space_h: float,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Colourise films, stills, or folders of them.

    INPUT is a film, a still (PNG, JPEG, TIFF) or a folder, which is searched through. The output's extension stands
    for a container and a profile: .mp4 and .m4v for access (H.264), .mov for mezzanine (ProRes 422 HQ), .mkv for
    preservation (FFV1), .webm for VP9; --profile and --codec override it. In a folder, films become access copies,
    outputs that are there already and whole are skipped, and a bad file does not stop the rest; archivecolor status
    OUTPUT shows what became of each.

    Whatever interrupts it, the same command goes on with the work. The first Ctrl-C finishes the segment at hand.

    Numbered frames (DPX, TIFF, PNG), named by a pattern or by their folder, are one film with --fps; an OUTPUT with a
    pattern in it is written as such frames.

    \b
    archivecolor colorize old_film.mp4 -o out.mp4
    archivecolor colorize reels/ -o colour/ --exclude 'outtakes/*'
    archivecolor colorize reel.mkv -o master.mkv --recombine luma
    archivecolor colorize scan/ --fps 18 -o scan.mov
    archivecolor colorize scan/%06d.dpx --fps 24 -o colour/%06d.tif
    """
    config = ColorizeConfig(**settings)
    work = WorkConfig(work_dir, keep_work, segment_frames, wait_for_space_h * 3600)
    stop = stop_on_signals()

    from archivecolor.colorize.batch import Job, plan_jobs
    from archivecolor.colorize.crew import Task
    from archivecolor.colorize.distributed import open_crew
    from archivecolor.colorize.shelf import Selection, open_shelf
    from archivecolor.errors import ConfigError, DataError
    from archivecolor.film import CONTAINERS, OutputSettings, holds_frames, is_pattern, looks_like_a_film

    into_folder = output.endswith(("/", os.sep)) or Path(output).is_dir()
    to_film = Path(output).suffix.lower() in CONTAINERS and not into_folder and holds_frames(inputs[0])
    as_sequence = config.fps is not None or to_film or is_pattern(Path(output))
    select = Selection(include, exclude) if include or exclude else None

    def find_jobs() -> list[Job]:
        return plan_jobs(
            inputs, Path(output), into_folder=into_folder, profile=profile, as_sequence=as_sequence, select=select
        )

    def find_new_jobs() -> list[Job]:
        try:
            return find_jobs()
        except DataError:  # none yet
            return []

    def look_again() -> list[Job]:
        try:
            return find_new_jobs()
        except (ConfigError, OSError) as error:  # what is wrong with the folder may be put right meanwhile
            if str(error) not in told:
                print_error(str(error))
            told.add(str(error))
            return []

    told: set[str] = set()
    jobs = find_new_jobs() if watch else find_jobs()
    if not quiet and not as_sequence and inputs[0].is_dir() and looks_like_a_film(inputs[0]):
        print_warning(f"{inputs[0]}: its numbered pictures are coloured one by one; with --fps they are one film")
    several = watch or len(jobs) > 1 or (inputs[0].is_dir() and not as_sequence)
    if watch and not all(path.is_dir() for path in inputs):
        raise click.UsageError("--watch is for folders")
    named = not several and (jobs[0].output == Path(output) or as_sequence)
    if profile is None and codec is None and not named:
        profile = "access"  # the extensions follow from the sources, not from what the user asked for
    out = OutputSettings(codec, crf, preset, pix_fmt, keep_luma=config.recombine == "luma", profile=profile)
    task = Task(config, out, work, overwrite, go_on=several)

    results: list[JobResult] = []
    with ExitStack() as stack:
        display = stack.enter_context(progress_display(quiet=quiet))
        bars: dict[Job, Any] = {}

        def follow(job: Job) -> Any:
            if job not in bars:
                bars[job] = display.follow(job.source.name)
            return bars[job]

        crew = stack.enter_context(open_crew(task, stop, follow, several=several, workers=workers, cluster=cluster))
        if several:
            shelf = stack.enter_context(open_shelf(Path(output), task, crew, stop, retries, display.say))
            coming = shelf.watch(look_again) if watch else shelf.run(jobs)
        else:
            coming = (crew.submit(job).result() for job in jobs)
        for result in coming:
            results.append(result)
            if result.job in bars:
                bars.pop(result.job).close()
            _tell(result, quiet)

    if as_json:
        click.echo(json.dumps({"results": [result.to_dict() for result in results]}, indent=2))
    elif not quiet:
        _print_summary(results, several)
    if stop.is_set() and not watch and not (len(results) == len(jobs) and results[-1].state != "stopped"):
        print_error("stopped; the same command goes on from there")
        sys.exit(EXIT_INTERRUPTED)
    if any(result.state == "failed" for result in results) or (not several and results[0].state == "elsewhere"):
        sys.exit(EXIT_FAILED)


def _tell(result: JobResult, quiet: bool) -> None:
    """Errors and warnings, but for those that were told before the work."""
    if result.state in ("failed", "elsewhere"):
        print_error(str(result.error))
    if result.report is not None and not quiet:
        for warning in result.report.warnings:
            if warning in result.report.said_before:
                continue
            print_warning(warning if result.job.source.name in warning else f"{result.job.source}: {warning}")


def _print_summary(results: list[JobResult], several: bool) -> None:
    """One line for a single job, a table for several."""
    if not several:
        report = results[0].report if results else None
        if results and results[0].state == "skipped":
            click.echo(f"{results[0].job.output}: was whole already")
        if report is not None:
            frames = "" if report.limiting is None else f": {report.frames_written} frames, "
            speed = "" if report.limiting is None else f"{report.frames_per_s:.1f} frames/s, limited by "
            click.echo(f"{report.output}{frames}{speed}{report.limiting or ''}")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    happened = Column("what happened", no_wrap=True, overflow="ellipsis")  # errors have been told in full already
    table = Table("file", "state", "frames", "frames/s", happened, box=None, pad_edge=False)
    colours = {"coloured": "green", "skipped": "cyan", "failed": "red", "stopped": "yellow", "elsewhere": "yellow"}
    for result in results:
        report = result.report
        if result.error is not None:
            remark = str(result.error).removeprefix(f"{result.job.source}: ")
        elif report is not None:
            remark = "; ".join(report.warnings) or str(result.job.output)
        else:
            remark = f"{result.job.output} is there and whole"
        table.add_row(
            escape(str(result.job.source)),
            f"[{colours[result.state]}]{result.state}[/]",
            str(report.frames_written) if report else "",
            f"{report.frames_per_s:.1f}" if report else "",
            escape(remark),
        )
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
    states = [result.state for result in results]
    told: list[Any] = ["coloured", "skipped", "failed"]
    told += [state for state in ("stopped", "elsewhere") if state in states]
    error_console().print(", ".join(f"{states.count(state)} {state}" for state in told))
