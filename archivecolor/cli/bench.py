"""``archivecolor bench``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archivecolor.cli.console import command_options, terminate_like_interrupt
from archivecolor.cli.options import FrameSize, engine_options, output_options
from archivecolor.config import ColorizeConfig

if TYPE_CHECKING:
    from archivecolor.colorize.bench import BenchResult

_SHORT_S = 10.0


@click.command()
@click.argument("film", required=False, type=click.Path(path_type=Path))
@click.option("--seconds", type=click.FloatRange(min=1), default=24.0, show_default=True, help="How much of the film.")
@click.option("--size", type=FrameSize(), default="640x480", show_default=True, help="Of the made film, WxH, even.")
@click.option(
    "--container",
    type=click.Choice(["mp4", "mov", "mkv"]),
    default="mp4",
    show_default=True,
    help="Of the output, which chooses its codec.",
)
@engine_options
@output_options
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON on standard output.")
@command_options
def bench(
    film: Path | None,
    seconds: float,
    size: tuple[int, int],
    container: str,
    profile: str | None,
    codec: str | None,
    crf: int | None,
    preset: str | None,
    pix_fmt: str | None,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Measure how fast films are colourised on this machine, and how long one of 90 minutes takes.

    FILM is measured on its first seconds; without one, a film is made for the purpose.
    """
    config = ColorizeConfig(**settings, end_s=seconds)
    terminate_like_interrupt()

    from archivecolor.colorize.bench import bench_film
    from archivecolor.colorize.engine import Engine
    from archivecolor.film import OutputSettings, make_synthetic_film

    out = OutputSettings(codec, crf, preset, pix_fmt, keep_luma=config.recombine == "luma", profile=profile)
    engine = Engine(config)
    with tempfile.TemporaryDirectory(prefix="archivecolor-bench-") as folder:
        if film is None:
            film = Path(folder) / "synthetic.mp4"
            make_synthetic_film(film, width_px=size[0], height_px=size[1], frames=round(25 * seconds))
        result = bench_film(film, engine, config, out, extension=f".{container}")
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=2))
    elif not quiet:
        _print_table(result)


def _print_table(result: BenchResult) -> None:
    from rich.console import Console
    from rich.table import Table

    width, height = result.size_px
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{Path(result.film).name}, {width}x{height}, {result.frames} frames; {result.device}, {result.precision}"
    )
    table = Table("", "frames/s", "ms a frame", box=None, pad_edge=False)
    table.columns[1].justify = table.columns[2].justify = "right"
    for name, speed in result.stages.items():
        table.add_row(f"{name} alone", f"{speed:.1f}", f"{1000 / speed:.1f}")
    table.add_section()
    table.add_row("plain transcode", f"{result.transcode:.1f}", f"{1000 / result.transcode:.1f}")
    how = "transcode and network in turn" if result.shares_cpu else "the slower of transcode and network"
    table.add_row(f"bound: {how}", f"{result.bound:.1f}", f"{1000 / result.bound:.1f}")
    table.add_row("[bold]whole pipeline[/]", f"[bold]{result.pipeline:.1f}[/]", f"{1000 / result.pipeline:.1f}")
    console.print(table)
    if result.carried:
        console.print(
            f"the network was spared {result.carried} of {result.frames} frames, which took the colour of their "
            "neighbours; the bound is that of all (--network-frames)"
        )
    console.print(f"efficiency {result.efficiency:.2f} of the bound; limited by {result.limiting}")
    if (measured_s := result.frames / result.pipeline) < _SHORT_S:
        console.print(
            f"the pipeline ran for {measured_s:.1f} s only, much of it to begin with; a longer part tells more"
        )
    if (needed_s := result.seconds_for(90 * 60)) is not None:
        hours, minutes = divmod(round(needed_s / 60), 60)
        rate = f"{result.film_fps:.5g} frames/s"
        console.print(
            f"first frames after {result.startup_s:.1f} s; a 90-minute film at {rate} takes {hours} h {minutes:02d} min"
        )
