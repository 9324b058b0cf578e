"""``archivecolor export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from archivecolor.cli.console import command_options, print_warning
from archivecolor.errors import ArchiveColorError, DataError

if TYPE_CHECKING:
    import torch

    from archivecolor.training.data import PhotoSet


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
    "--blend",
    type=click.Path(path_type=Path),
    metavar="WEIGHTS|RUN",
    help="Blend with the weights of this file or run; then --data is needed, or the run's photographs.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="How far of the way to --blend: 0 is RUN itself, 1 the other.",
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Photographs to calibrate and measure on; those of the run if not given.",
)
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Folder of the cache of decoded photographs.")
@click.option("--device", default="auto", show_default=True, help="auto, cuda, cuda:1, mps or cpu.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON on standard output.")
@command_options
def export(
    run: Path,
    output: Path,
    blend: Path | None,
    share: float,
    data: tuple[Path, ...],
    cache_dir: Path | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a run's averaged generator in the shipping format.

    RUN is a run folder; its newest checkpoint is taken, and its batch norms are calibrated on the photographs that
    the run was trained on. Large convolutions become int8 with a scale a channel, and how far that moves the colours
    is measured on those that it held out. --blend goes part of the way to other weights of the same shape: from a
    network trained on L1 to one trained adversarially, say.

    \b
    archivecolor export runs/ibn-sn-md -o weights/ibn-sn-md.safetensors
    """
    if blend is None and click.get_current_context().get_parameter_source("share") is not ParameterSource.DEFAULT:
        raise click.UsageError("--share goes with --blend")

    from archivecolor.colorize.device import choose_device
    from archivecolor.training.export import export_run, quantisation_error
    from archivecolor.training.runs import load_trained

    stored_px = load_trained(run).config.stored_px
    chosen = choose_device(device)
    photos: PhotoSet | None = None
    try:
        photos = _photos(run, data, stored_px, cache_dir, chosen)
    except ArchiveColorError as error:
        if data or blend:  # whose batch norms would be wrong
            raise
        if not quiet:
            print_warning(f"neither calibrated nor measured: {error} (name the run's photographs with --data)")
    exported = export_run(run, output, towards=blend, share=share, photos=photos, device=chosen)
    trained = exported.trained
    shift = quantisation_error(exported, photos, chosen) if photos else None

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


def _photos(
    run: Path, data: tuple[Path, ...], stored_px: int, cache_dir: Path | None, device: torch.device
) -> PhotoSet:
    from archivecolor.training.data import load_photos
    from archivecolor.training.runs import Run

    begun = Run.read(run)
    folders = data or (begun.data if begun else ())
    if not folders:
        raise DataError(f"{run}: does not say which photographs it was trained on")
    return load_photos(folders, stored_px, cache_dir=cache_dir, device=device)
