"""``archivecolor verify``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from archivecolor.cli.console import EXIT_FAILED, command_options, print_error


@click.command()
@click.argument("outputs", metavar="OUTPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--source", type=click.Path(path_type=Path), help="Where the source lies now, if it was moved.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@command_options
def verify(outputs: tuple[Path, ...], source: Path | None, as_json: bool, quiet: bool) -> None:
    """Check outputs of colorize against their sidecars and sources.

    The sidecar is OUTPUT.json. Compared are checksums, the number of frames and the time of each, the packets of sound
    and other streams, FFV1's checksums and, where it was kept bit for bit, the luma of every frame.
    """
    if source is not None and len(outputs) > 1:
        raise click.UsageError("--source goes with one output")
    from archivecolor.colorize.verify import verify as verify_output
    from archivecolor.errors import DataError

    results, failed = [], False
    for output in outputs:
        try:
            result = verify_output(output, source)
        except DataError as error:
            if len(outputs) == 1:
                raise
            print_error(str(error))
            failed = True
            continue
        results.append(result)
        failed |= not result.passed
        if not as_json and not quiet:
            for check in result.checks:
                state = {True: "ok", False: "FAILED", None: "not checked"}[check.passed]
                click.echo(f"{state:12}{check.name}: {check.detail}")
            click.echo(f"{output}: {'all is well' if result.passed else 'FAILED'}")
        elif not result.passed and not as_json:
            print_error(f"{output}: " + "; ".join(f"{c.name}: {c.detail}" for c in result.checks if c.passed is False))
    if as_json:
        click.echo(json.dumps({"results": [result.to_dict() for result in results]}, indent=2))
    if failed:
        sys.exit(EXIT_FAILED)
