"""``archivecolor status``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archivecolor.cli.console import command_options, error_console

if TYPE_CHECKING:
    from archivecolor.colorize.catalogue import Entry

_COLOURS = {"coloured": "green", "working": "cyan", "failed": "red", "interrupted": "yellow", "stopped": "yellow"}


@click.command()
@click.argument("folder", metavar="OUTPUT", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the catalogue as JSON.")
@command_options
def status(folder: Path, as_json: bool, quiet: bool) -> None:
    """Show what became of the films of a folder job.

    OUTPUT is the folder that colorize writes to. A film is waiting, working, coloured, failed, stopped, or, where its
    process is no more, interrupted; running colorize again goes on with all that is not coloured.
    """
    from archivecolor.colorize.catalogue import Catalogue

    with Catalogue(folder, read_only=True) as catalogue:
        found = [(entry, entry.state_now) for entry in catalogue.entries()]
    states = [state for _, state in found]
    counts = {state: states.count(state) for state in dict.fromkeys(["coloured", "waiting", "failed", *states])}
    if as_json:
        films = [{**entry.to_dict(), "state": state} for entry, state in found]
        click.echo(json.dumps({"folder": str(folder), "counts": counts, "films": films}, indent=2))
        return
    if not quiet:
        _print_table(found)
    error_console().print(", ".join(f"{count} {state}" for state, count in counts.items()))


def _print_table(found: list[tuple[Entry, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("film", "state", "tries", "frames", "took", "since", "what happened", box=None, pad_edge=False)
    for entry, state in found:
        table.add_row(
            entry.output,
            Text(state, style=_COLOURS.get(state, "")),
            str(entry.attempts),
            "" if entry.frames is None else str(entry.frames),
            "" if entry.seconds is None else f"{entry.seconds:.0f} s",
            (entry.finished if state != "working" else entry.started) or entry.queued or "",
            Text(entry.error or ""),
        )
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
