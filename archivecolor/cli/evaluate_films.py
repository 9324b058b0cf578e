"""``archivecolor evaluate --film``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from archivecolor.cli.console import error_console, terminate_like_interrupt
from archivecolor.config import ColorizeConfig
from archivecolor.errors import DataError

if TYPE_CHECKING:
    from archivecolor.evaluation.films import FilmEvaluation


def evaluate_films(
    clips: tuple[str, ...],
    config: ColorizeConfig,
    encoding: dict[str, Any],
    size_px: int,
    points: tuple[tuple[float, float], ...],
    out: Path | None,
    *,
    as_json: bool,
    as_markdown: bool,
    quiet: bool,
) -> None:
    """Measure one clip after another; each is printed, and written under ``out``, as soon as it is measured.

    ``encoding`` is what `output_options` were given.
    """
    terminate_like_interrupt()

    from archivecolor.colorize.engine import Engine
    from archivecolor.evaluation.films import POINTS, evaluate_film
    from archivecolor.film import OutputSettings

    engine, settings = Engine(config), OutputSettings(**encoding, keep_luma=config.recombine == "luma")
    console = error_console()
    evaluations: list[FilmEvaluation] = []
    for clip in clips:
        with console.status("", spinner="line") as status:
            tell = status.update if console.is_terminal and not quiet else None
            evaluation = evaluate_film(
                Path(clip), engine, config, settings, size_px=size_px, points=points or POINTS, on_step=tell
            )
        evaluations.append(evaluation)
        if out is not None:
            _write_all(evaluation, out / Path(clip).stem)
        if as_markdown:
            click.echo(evaluation.to_markdown() + "\n")
        elif not as_json and not quiet:
            _show_table(evaluation)
    if as_json:
        click.echo(json.dumps({"films": [evaluation.to_dict() for evaluation in evaluations]}, indent=1))


def _write_all(evaluation: FilmEvaluation, folder: Path) -> None:
    from archivecolor.evaluation.figures import draw_ab_over_time, draw_film_measures

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "film.json").write_text(json.dumps(evaluation.to_dict(), indent=1) + "\n")
        (folder / "film.md").write_text(evaluation.to_markdown() + "\n")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror})") from error
    draw_ab_over_time(evaluation, folder / "ab_over_time.png")
    draw_film_measures(evaluation, folder / "measures.png")


def _show_table(evaluation: FilmEvaluation) -> None:
    from archivecolor.evaluation.films import COLUMNS

    width_px, height_px = evaluation.size_px
    shots = "1 shot" if evaluation.shots == 1 else f"{evaluation.shots} shots"
    table = Table(caption=f"{evaluation.frames} frames, {shots}, at {width_px}x{height_px}")
    table.add_column(Text(evaluation.film.name))
    for _, heading, _, _ in COLUMNS:
        table.add_column(Text(heading), justify="right", overflow="fold")
    for row in evaluation.rows:
        table.add_row(Text(row.method), *row.cells())
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
