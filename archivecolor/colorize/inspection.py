"""What ``archivecolor inspect`` tells: what is in a film, and what colourising it would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from archivecolor.colorize.mattes import Rectangle
from archivecolor.colorize.pipeline import analyse, plan_warnings
from archivecolor.errors import ArchiveColorError
from archivecolor.film import FilmInfo, OutputSettings, default_extension, plan_output, probe, read_still

Sections = dict[str, dict[str, Any]]


def inspect_film(film: Path, output: Path | None = None, settings: OutputSettings | None = None) -> Sections:
    """Titled groups of name and value, JSON-ready: file, picture, time, streams, tags, plan.

    Args:
        output: what ``colorize`` would write; the film's own name with the default extension when None. What would
            keep ``colorize`` from working is told under the plan, not raised.

    Raises:
        FilmOpenError, FilmDecodeError: the film cannot be looked into.
    """
    info = probe(film)
    analysis = analyse(info)
    picture = info.picture
    sections: Sections = {
        "File": {
            "path": str(film),
            "container": info.container_name,
            "size": f"{info.size_bytes / 1e6:.2f} MB",
        },
        "Picture": {
            "codec": info.codec,
            "size": f"{picture.width_px}x{picture.height_px} px",
            "picture inside black bars": _describe(analysis.picture, info),
            "pixel format": f"{picture.pix_fmt}, {picture.bit_depth} bit, {_range(info)}",
            "matrix": picture.matrix + (" (not tagged)" if picture.tagged_matrix == 2 else ""),
            "sample aspect ratio": str(picture.sample_aspect_ratio or "not tagged").replace("/", ":"),
            "rotation": f"{picture.rotation} degrees",
            "interlaced": picture.interlaced,
            "HDR": info.hdr,
            "black and white": analysis.is_black_and_white,
        },
        "Time": {
            "duration": None if info.duration_s is None else f"{info.duration_s:.3f} s",
            "frames": info.frames_estimate,
            "frame rate": None if info.average_rate is None else f"{float(info.average_rate):.3f} frames/s",
            "variable frame rate": info.is_variable_rate,
            "first frame at": f"{float(info.first_pts_ticks * info.time_base):.3f} s",
            "time base": f"{info.time_base} s",
        },
        "Streams": {
            f"{stream.index} {stream.kind}": " ".join(
                part for part in (stream.codec, stream.description, stream.language, stream.title) if part
            )
            for stream in info.streams
        },
    }
    if info.chapters:
        sections["Chapters"] = {f"{c.start_s:.2f} to {c.end_s:.2f} s": c.title for c in info.chapters}
    if info.metadata:
        sections["Tags"] = dict(info.metadata)
    target = output or film.with_name(f"{film.stem}_colour{default_extension(film)}")
    sections["Colorize would"] = _plan(info, target, settings)
    return sections


def inspect_still(path: Path) -> Sections:
    """The same for a still."""
    still = read_still(path)
    height, width = still.luma.shape
    return {
        "Still": {
            "path": str(path),
            "size": f"{width}x{height} px",
            "depth": f"{still.bit_depth} bit",
            "black and white": still.was_neutral,
        }
    }


def _plan(info: FilmInfo, target: Path, settings: OutputSettings | None) -> dict[str, Any]:
    try:
        plan = plan_output(info, target, settings)
    except ArchiveColorError as error:
        return {"fail": str(error)}
    options = " ".join(f"{name}={value}" for name, value in plan.encoder_options.items())
    streams = {stream.index: f"{stream.index} {stream.kind} {stream.codec}" for stream in info.streams}
    return {
        "write": str(target),
        "encode": f"{plan.encoder} {plan.pix_fmt} {options}".strip(),
        "copy": [streams[index] for index in plan.kept],
        "warn": plan_warnings(plan),
    }


def _range(info: FilmInfo) -> str:
    return "full range" if info.picture.full_range else "limited range"


def _describe(picture: Rectangle, info: FilmInfo) -> str:
    if picture.fills(info.picture.height_px, info.picture.width_px):
        return "no bars"
    return f"{picture.width_px}x{picture.height_px} px at ({picture.left}, {picture.top})"
