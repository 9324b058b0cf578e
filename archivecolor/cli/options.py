"""Options that several commands share, and their types."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from archivecolor.config import MOST_TEMPORAL, ColorizeConfig, WorkConfig

Command = TypeVar("Command", bound=Callable[..., Any])


class TimeOfFilm(click.ParamType):  # type: ignore[type-arg]
    """Seconds, or [HH:]MM:SS, with a fraction; becomes seconds as a float."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse, or fail as wrong usage."""
        if isinstance(value, float):
            return value
        try:
            parts = [float(part) for part in str(value).split(":")]
        except ValueError:
            parts = []
        if (
            not 1 <= len(parts) <= 3
            or not all(map(math.isfinite, parts))
            or any(part < 0 for part in parts)
            or any(part >= 60 for part in parts[1:])
        ):
            self.fail(f"{value!r} is not a time such as 90, 1:30 or 0:01:30.5", param, ctx)
        return functools.reduce(lambda total, part: total * 60 + part, parts)


class TemporalStrength(click.ParamType):  # type: ignore[type-arg]
    """``on``, ``off``, or a number from 0 to `MOST_TEMPORAL`; becomes the number."""

    name = "on|off|strength"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse, or fail as wrong usage."""
        if value in ("on", "off"):
            return ColorizeConfig.temporal if value == "on" else 0.0
        try:
            strength = float(value)
        except ValueError:
            strength = math.nan
        if not 0 <= strength <= MOST_TEMPORAL:
            self.fail(f"{value!r} is neither on nor off nor a number from 0 to {MOST_TEMPORAL}", param, ctx)
        return strength


class MultipleOf(click.ParamType):  # type: ignore[type-arg]
    """A positive whole number that is a multiple of ``step``."""

    name = "integer"

    def __init__(self, step: int) -> None:
        self.step = step

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse, or fail as wrong usage."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number", param, ctx)
        if number <= 0 or number % self.step:
            self.fail(f"{number} is not a multiple of {self.step}", param, ctx)
        return number


class FrameSize(click.ParamType):  # type: ignore[type-arg]
    """WIDTHxHEIGHT, both even; becomes a pair."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parse, or fail as wrong usage."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)x(\d+)", str(value))
        if match is None or any(int(side) % 2 or not 16 <= int(side) <= 8192 for side in match.groups()):
            self.fail(f"{value!r} is not a size such as 640x480, both sides even", param, ctx)
        return int(match[1]), int(match[2])


def _all(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    def decorate(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


colour_options = _all(
    click.option(
        "--render-size",
        "render_size_px",
        type=MultipleOf(128),
        default=256,
        show_default=True,
        help="Side of the square that the network sees, px; a multiple of 128.",
    ),
    click.option(
        "--fit",
        type=click.Choice(["square", "aspect"]),
        default="square",
        show_default=True,
        help="Show the network a square, or an oblong about as oblong as the picture, --render-size high (or wide).",
    ),
    click.option(
        "--saturation",
        type=click.FloatRange(0, 4),
        default=1.0,
        show_default=True,
        help="Strength of the colour; 0 is grey.",
    ),
    click.option(
        "--recombine",
        type=click.Choice(["lab", "luma"]),
        default="lab",
        show_default=True,
        help="Keep the source's lightness, or its luma plane bit for bit.",
    ),
    click.option(
        "--deinterlace",
        type=click.Choice(["auto", "off", "fields"]),
        default="auto",
        show_default=True,
        help="Of each interlaced frame make one progressive frame, none, or two (one a field).",
    ),
    click.option(
        "--chroma-upsampling",
        type=click.Choice(["bilinear", "bicubic", "guided"]),
        default="bicubic",
        show_default=True,
        help="From the network's size to the film's; guided follows the edges of L, and its grain.",
    ),
    click.option(
        "--temporal",
        type=TemporalStrength(),
        default="on",
        show_default=True,
        metavar="on|off|STRENGTH",
        help=f"Steady the colour over time; STRENGTH from 0, off, to {MOST_TEMPORAL}, on is {ColorizeConfig.temporal}.",
    ),
    click.option(
        "--network-frames",
        type=click.Choice(["auto", "all", "fewer"]),
        default="auto",
        show_default=True,
        help="Frames that the network colours; fewer leaves out every second one where its neighbours' colour, carried "
        "along the motion, will do. auto is fewer on a CPU, while --temporal is 0.8 or more.",
    ),
    click.option(
        "--shot-consistency",
        is_flag=True,
        help="Keep the colour level through each shot: what the same things drift by is taken away again.",
    ),
)
"""What the colour looks like."""

weights_option = click.option("--weights", metavar="NAME|FILE", help="Generator weights; those that ship by default.")

engine_options = _all(
    weights_option,
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps, ..."),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16", "int8"]),
        default="auto",
        show_default=True,
        help="Arithmetic of the network; auto is the fastest that keeps the colours.",
    ),
    click.option("--batch-size", type=click.IntRange(min=1), help="Frames at a time; halved if memory runs out."),
    colour_options,
)
"""How the colour is made."""

output_options = _all(
    click.option(
        "--profile",
        type=click.Choice(["access", "mezzanine", "preservation", "hevc", "av1"]),
        help="H.264, ProRes 422 HQ, FFV1, HEVC or AV1; by default what the extension stands for.",
    ),
    click.option("--codec", help="h264, hevc, av1, vp9, ffv1, prores, dnxhd, or any FFmpeg encoder."),
    click.option("--crf", type=click.IntRange(0, 63), help="Quality of the encoder; lower is better and larger."),
    click.option("--preset", help="Speed preset of the encoder, e.g. veryfast or slow."),
    click.option("--pix-fmt", help="Pixel format of the output, e.g. yuv420p10le."),
)
"""How the output is encoded."""
ENCODING: Final = ("codec", "crf", "preset", "pix_fmt", "profile")
"""The parameters of `output_options`, fields of `OutputSettings`."""

work_options = _all(
    click.option(
        "--work-dir",
        type=click.Path(file_okay=False),
        help="Where unfinished work lies, in a folder for each output; beside the output by default.",
    ),
    click.option("--keep-work", is_flag=True, help="Keep the work folder of a finished film."),
    click.option(
        "--segment-frames",
        type=click.IntRange(min=4),
        default=WorkConfig.segment_frames,
        show_default=True,
        help="Most frames in a segment: what an interruption costs at most.",
    ),
    click.option(
        "--wait-for-space",
        "wait_for_space_h",
        type=click.FloatRange(min=0),
        default=WorkConfig.wait_for_space_s / 3600,
        show_default=True,
        metavar="HOURS",
        help="How long to wait where the disk is full; 0 makes it an error.",
    ),
)
"""How work is kept until it is whole."""

shelf_options = _all(
    click.option("--include", multiple=True, metavar="PATTERN", help="Of a folder, only what matches, e.g. '*.mkv'."),
    click.option("--exclude", multiple=True, metavar="PATTERN", help="Of a folder, not what matches, e.g. 'drafts/*'."),
    click.option(
        "--jobs",
        "workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Worker processes, each with a film or a part of the only one; by default one for each GPU.",
    ),
    click.option("--cluster", metavar="auto|ADDRESS", help="Have a Ray cluster do the work; see docs/cluster.md."),
    click.option(
        "--retries",
        type=click.IntRange(min=0),
        default=1,
        show_default=True,
        help="How often a film is tried again in this run that failed by the machine's fault, not by its own.",
    ),
    click.option("--watch", is_flag=True, help="Go on looking for new films in the folder, until stopped."),
)
"""How a folder of films is worked through."""
