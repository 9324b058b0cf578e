"""The command line. One file a command; each imports what is heavy only once it runs."""

from __future__ import annotations

import click

from archivecolor import __version__
from archivecolor.cli.bench import bench
from archivecolor.cli.colorize import colorize
from archivecolor.cli.evaluate import evaluate
from archivecolor.cli.export import export
from archivecolor.cli.inspect import inspect
from archivecolor.cli.status import status
from archivecolor.cli.train import train
from archivecolor.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="archivecolor")
def main() -> None:
    """Colourise black-and-white archive film: every frame kept, at its own time, with its own lightness."""


for command in (colorize, status, inspect, verify, bench, train, export, evaluate):
    main.add_command(command)
