"""``archivecolor export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archivecolor.cli.console import command_options, print_warning
from archivecolor.errors import ArchiveColorError, DataError

if TYPE_CHECKING:
    from archivecolor.training.export import Exported


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE.safetensors",
    help="The weights file to write; its folder's manifest.json is brought up to date.",
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Photographs to measure int8 on; those of the run if not given.",
)
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Folder of the cache of decoded photographs.")
@click.option("--device", default="auto", show_default=True, help="auto, cuda, cuda:1, mps or cpu.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON on standard output.")
@command_options
def export(
    run: Path,
    output: Path,
    data: tuple[Path, ...],
    cache_dir: Path | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a run's averaged generator in the shipping format.

    RUN is a run folder; its newest checkpoint is taken. Large convolutions become int8 with a scale a channel, and
    how far that moves the colours is measured on the photographs that the run held out.

    \b
    archivecolor export runs/ibn-sn-md -o weights/ibn-sn-md.safetensors
    """
    from archivecolor.training.export import export_run

    exported = export_run(run, output)
    trained = exported.trained
    shift: float | None = None
    try:
        shift = _quantisation_error(exported, run, data, cache_dir, device)
    except ArchiveColorError as error:
        if data:
            raise
        if not quiet:
            print_warning(f"how far int8 moves the colours was not measured: {error} (name photographs with --data)")

    if as_json:
        record = {
            "weights": str(exported.path),
            "sha256": exported.sha256,
            "bytes": exported.path.stat().st_size,
            "preset": trained.config.preset,
            "step": trained.step,
            "images": trained.images,
            "checkpoint": str(trained.checkpoint),
            "int8_mean_abs_dab": shift,
        }
        click.echo(json.dumps(record))
    elif not quiet:
        moved = "" if shift is None else f"; int8 moves a and b by {shift:.3f} on average"
        click.echo(
            f"{exported.path}: {exported.path.stat().st_size / 1e6:.1f} MB, {trained.config.preset} after "
            f"{trained.images:,} photographs{moved}"
        )


def _quantisation_error(
    exported: Exported, run: Path, data: tuple[Path, ...], cache_dir: Path | None, device: str
) -> float:
    from archivecolor.colorize.device import choose_device
    from archivecolor.training.data import load_photos
    from archivecolor.training.export import quantisation_error
    from archivecolor.training.runs import Run

    begun = Run.read(run)
    folders = data or (begun.data if begun else ())
    if not folders:
        raise DataError(f"{run}: does not say which photographs it was trained on")
    chosen = choose_device(device)
    photos = load_photos(folders, exported.trained.config.stored_px, cache_dir=cache_dir, device=chosen)
    return quantisation_error(exported, photos, chosen)
