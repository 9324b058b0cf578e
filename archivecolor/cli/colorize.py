"""``archivecolor colorize``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archivecolor.cli.console import (
    EXIT_FAILED,
    command_options,
    error_console,
    print_error,
    print_warning,
    progress_bar,
    terminate_like_interrupt,
)
from archivecolor.cli.options import TimeOfFilm, engine_options, output_options
from archivecolor.config import ColorizeConfig

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
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Colourise films, stills, or folders of them.

    INPUT is a film, a still (PNG, JPEG, TIFF) or a folder, which is searched through. The output's extension stands
    for a container and a profile: .mp4 and .m4v for access (H.264), .mov for mezzanine (ProRes 422 HQ), .mkv for
    preservation (FFV1), .webm for VP9; --profile and --codec override it. In a folder, films become access copies,
    outputs that are there already and whole are skipped, and a bad file does not stop the rest.

    Numbered frames (DPX, TIFF, PNG), named by a pattern or by their folder, are one film with --fps; an OUTPUT with a
    pattern in it is written as such frames.

    \b
    archivecolor colorize old_film.mp4 -o out.mp4
    archivecolor colorize reels/ -o colour/
    archivecolor colorize reel.mkv -o master.mkv --recombine luma
    archivecolor colorize scan/ --fps 18 -o scan.mov
    archivecolor colorize scan/%06d.dpx --fps 24 -o colour/%06d.tif
    """
    config = ColorizeConfig(**settings)
    terminate_like_interrupt()

    from archivecolor.colorize.batch import plan_jobs, run_job
    from archivecolor.colorize.engine import Engine
    from archivecolor.film import CONTAINERS, OutputSettings, holds_frames, is_pattern

    into_folder = output.endswith(("/", os.sep)) or Path(output).is_dir()
    to_film = Path(output).suffix.lower() in CONTAINERS and not into_folder and holds_frames(inputs[0])
    as_sequence = config.fps is not None or to_film or is_pattern(Path(output))
    jobs = plan_jobs(inputs, Path(output), into_folder=into_folder, profile=profile, as_sequence=as_sequence)
    several = len(jobs) > 1 or (inputs[0].is_dir() and not as_sequence)
    named = jobs[0].output == Path(output) or as_sequence
    if profile is None and codec is None and not named:
        profile = "access"  # the extensions follow from the sources, not from what the user asked for
    out = OutputSettings(codec, crf, preset, pix_fmt, keep_luma=config.recombine == "luma", profile=profile)
    engine = Engine(config)

    results: list[JobResult] = []
    for number, job in enumerate(jobs, 1):
        title = f"{job.source.name} ({number}/{len(jobs)})" if several else job.source.name
        with progress_bar(title, quiet=quiet) as progress:
            result = run_job(job, engine, config, out, overwrite=overwrite, go_on=several, progress=progress)
        results.append(result)
        if result.error is not None:
            print_error(str(result.error))
        if result.report is not None and not quiet:
            for warning in result.report.warnings:
                print_warning(warning if job.source.name in warning else f"{job.source}: {warning}")

    if as_json:
        click.echo(json.dumps({"results": [result.to_dict() for result in results]}, indent=2))
    elif not quiet:
        _print_summary(results, several)
    if any(result.state == "failed" for result in results):
        sys.exit(EXIT_FAILED)


def _print_summary(results: list[JobResult], several: bool) -> None:
    """One line for a single job, a table for several."""
    if not several:
        report = results[0].report
        if report is not None:
            frames = "" if report.limiting is None else f": {report.frames_written} frames, "
            speed = "" if report.limiting is None else f"{report.frames_per_s:.1f} frames/s, limited by "
            click.echo(f"{report.output}{frames}{speed}{report.limiting or ''}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("file", "state", "frames", "frames/s", "what happened", box=None, pad_edge=False)
    colours = {"coloured": "green", "skipped": "cyan", "failed": "red"}
    for result in results:
        report = result.report
        if result.error is not None:
            remark = str(result.error)
        elif report is not None:
            remark = "; ".join(report.warnings) or str(result.job.output)
        else:
            remark = "its output is there and whole"
        table.add_row(
            str(result.job.source),
            f"[{colours[result.state]}]{result.state}[/]",
            str(report.frames_written) if report else "",
            f"{report.frames_per_s:.1f}" if report else "",
            remark,
        )
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
    states = [result.state for result in results]
    error_console().print(
        f"{states.count('coloured')} coloured, {states.count('skipped')} skipped, {states.count('failed')} failed"
    )
