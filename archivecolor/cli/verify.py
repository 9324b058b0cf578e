"""``archivecolor verify``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archivecolor.cli.console import EXIT_FAILED, command_options, error_console, print_error

if TYPE_CHECKING:
    from archivecolor.colorize.verify import Verification


@click.command()
@click.argument("outputs", metavar="OUTPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--source", type=click.Path(path_type=Path), help="Where the source lies now, if it was moved.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@command_options
def verify(outputs: tuple[Path, ...], source: Path | None, as_json: bool, quiet: bool) -> None:
    """Check outputs of colorize against their sidecars and sources.

    OUTPUT is a film, a still, an image sequence (its folder, or a pattern), or a folder of outputs, of which each that
    has a sidecar is checked. The sidecar is OUTPUT.json. Compared are checksums, the number of frames and the time of
    each, the packets of sound and other streams, FFV1's checksums and, where it was kept bit for bit, the luma of every
    frame.
    """
    from archivecolor.colorize.verify import outputs_of
    from archivecolor.colorize.verify import verify as verify_output
    from archivecolor.errors import DataError

    found = list(dict.fromkeys(output for path in outputs for output in outputs_of(path)))
    several = len(found) > 1 or found[0] != outputs[0]
    if source is not None and len(found) > 1:
        raise click.UsageError("--source goes with one output")
    results: list[dict[str, Any]] = []
    for output in found:
        try:
            result = verify_output(output, source)
        except DataError as error:
            if not several:
                raise
            results.append({"output": str(output), "passed": False, "error": str(error), "checks": []})
            print_error(str(error))
            continue
        results.append(result.to_dict())
        if not as_json and not quiet:
            _print_checks(result, only_failed=several)
        elif not result.passed and not as_json:
            print_error(f"{output}: " + "; ".join(f"{c.name}: {c.detail}" for c in result.checks if c.passed is False))
    failed = sum(not result["passed"] for result in results)
    if as_json:
        click.echo(json.dumps({"results": results}, indent=2))
    elif several and not quiet:
        error_console().print(f"{len(results)} outputs: {len(results) - failed} well, {failed} FAILED")
    if failed:
        sys.exit(EXIT_FAILED)


def _print_checks(result: Verification, *, only_failed: bool) -> None:
    """A line for each check, or for those that did not pass, and one for all."""
    for check in result.checks:
        state = {True: "ok", False: "FAILED", None: "not checked"}[check.passed]
        if not (only_failed and check.passed):
            click.echo(f"{state:12}{check.name}: {check.detail}")
    click.echo(f"{result.output}: {'all is well' if result.passed else 'FAILED'}")
