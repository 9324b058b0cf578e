"""``archivecolor inspect``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from archivecolor.cli.console import EXIT_FAILED, command_options
from archivecolor.cli.options import output_options
from archivecolor.config import ColorizeConfig

_WIDE = 1000  # columns, where no terminal wraps them


@click.command()
@click.argument("film", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The output that colorize would write.")
@click.option(
    "--recombine",
    type=click.Choice(["lab", "luma"]),
    default="lab",
    show_default=True,
    help="As in colorize: luma needs an output of the source's depth and range.",
)
@click.option(
    "--deinterlace",
    type=click.Choice(["auto", "off", "fields"]),
    default="auto",
    show_default=True,
    help="As in colorize: what becomes of interlaced frames.",
)
@click.option("--fps", metavar="RATE", help="Rate of an image sequence, e.g. 24, 23.976 or 24000/1001.")
@output_options
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@command_options
def inspect(film: Path, output: Path | None, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Show what is in a film, and what colorize would do with it; exit code 1 where it would refuse."""
    from archivecolor.colorize.inspection import inspect_film, inspect_still
    from archivecolor.film import OutputSettings, is_pattern, is_still

    config = ColorizeConfig(**{name: settings.pop(name) for name in ("recombine", "deinterlace", "fps")})
    if is_still(film) and not is_pattern(film):
        sections = inspect_still(film)
    else:
        sections = inspect_film(film, output, OutputSettings(**settings, keep_luma=config.recombine == "luma"), config)
    if as_json:
        click.echo(json.dumps(sections, indent=2, ensure_ascii=False))
    else:
        _print_tables(sections)
    if "fail" in sections.get("Colorize would", {}):
        sys.exit(EXIT_FAILED)


def _print_tables(sections: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _WIDE)
    for title, rows in sections.items():
        table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
        table.add_column()
        table.add_column(overflow="fold")
        for name, value in rows.items():
            table.add_row(name.replace("_", " "), _in_words(value))
        console.print(table)


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "\n".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
