"""What ``archivecolor inspect`` tells: what is in a film, and what colourising it would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from archivecolor.colorize.batch import plan_jobs
from archivecolor.colorize.mattes import Rectangle
from archivecolor.colorize.parts import analyse
from archivecolor.colorize.pipeline import plan_warnings
from archivecolor.colorize.places import is_sequence, plan_for
from archivecolor.config import ColorizeConfig
from archivecolor.errors import ArchiveColorError
from archivecolor.film import (
    FilmInfo,
    OutputSettings,
    after_deinterlacing,
    default_extension,
    is_pattern,
    probe,
    probe_sequence,
    read_still,
)
from archivecolor.film.info import MATRIX_NAMES, PRIMARIES_NAMES, TRANSFER_NAMES, UNTAGGED

Sections = dict[str, dict[str, Any]]


def inspect_film(
    film: Path,
    output: Path | None = None,
    settings: OutputSettings | None = None,
    config: ColorizeConfig | None = None,
) -> Sections:
    """Titled groups of name and value, JSON-ready: file, picture, time, streams, tags, plan.

    Args:
        output: what ``colorize`` would write; the name of the film, or of the folder of an image sequence, with the
            default extension when None. What would keep ``colorize`` from working is told as ``fail`` of the plan,
            not raised.
        config: what would become of interlaced frames, and the rate of an image sequence.

    Raises:
        FilmOpenError, FilmDecodeError: the film cannot be looked into.
    """
    config = config or ColorizeConfig()
    info = probe_sequence(film, config.rate) if is_sequence(film) else probe(film)
    analysis = analyse(info)
    picture = info.picture
    sections: Sections = {
        "File": {"path": str(film), "container": info.container_name, "size_bytes": info.size_bytes},
        "Picture": {
            "codec": info.codec,
            "width_px": picture.width_px,
            "height_px": picture.height_px,
            "inside_black_bars": _describe(analysis.picture, info),
            "pixel_format": picture.pix_fmt,
            "bit_depth": picture.bit_depth,
            "full_range": picture.full_range,
            "matrix": picture.matrix,
            "tagged_matrix": _tag(MATRIX_NAMES, picture.tagged_matrix),
            "tagged_primaries": _tag(PRIMARIES_NAMES, picture.tagged_primaries),
            "tagged_transfer": _tag(TRANSFER_NAMES, picture.tagged_transfer),
            "sample_aspect_ratio": str(picture.sample_aspect_ratio or "not tagged").replace("/", ":"),
            "rotation_degrees": picture.rotation,
            "interlaced": picture.interlaced,
            "field_order": {"tt": "top field first", "bb": "bottom field first"}.get(picture.field_order),
            "hdr": info.hdr,
            "black_and_white": analysis.is_black_and_white,
        },
        "Time": {
            "duration_s": None if info.duration_s is None else round(info.duration_s, 6),
            "frames": info.frames_estimate,
            "rate_fps": None if info.average_rate is None else round(float(info.average_rate), 6),
            "variable_rate": info.is_variable_rate,
            "first_frame_s": round(float(info.first_pts_ticks * info.time_base), 6),
            "time_base": str(info.time_base),
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
    sections["Colorize would"] = _plan(after_deinterlacing(info, config.fields), output, settings or OutputSettings())
    if picture.interlaced:
        made = {"auto": "one progressive frame of each", "off": "kept", "fields": "two progressive frames of each"}
        sections["Colorize would"]["interlaced_frames"] = made[config.fields]
    return sections


def inspect_still(path: Path) -> Sections:
    """The same for a still."""
    still = read_still(path)
    height, width = still.luma.shape
    return {
        "Still": {
            "path": str(path),
            "width_px": width,
            "height_px": height,
            "bit_depth": still.bit_depth,
            "black_and_white": still.was_neutral,
            "warn": list(still.warnings),
        }
    }


def _default_output(film: Path, profile: str | None) -> Path:
    """Beside the film, or beside the folder of an image sequence."""
    if is_sequence(film):
        folder = film.parent if is_pattern(film) else film
        return folder.parent / f"{folder.resolve().name or 'frames'}_colour{default_extension(folder, profile)}"
    return film.with_name(f"{film.stem}_colour{default_extension(film, profile)}")


def _plan(info: FilmInfo, output: Path | None, settings: OutputSettings) -> dict[str, Any]:
    film, sequence = info.path, is_sequence(info.path)
    try:
        if output is None:
            target = _default_output(film, settings.profile)
        else:
            into_folder = output.is_dir()
            [job] = plan_jobs([film], output, into_folder=into_folder, profile=settings.profile, as_sequence=sequence)
            target = job.output
        if target != output and not sequence and settings.profile is settings.codec is None:
            settings = replace(settings, profile="access")  # the extension follows from the source
        plan = plan_for(info, target, settings)
    except ArchiveColorError as error:
        return {"fail": str(error)}
    options = " ".join(f"{name}={value}" for name, value in plan.encoder_options.items())
    streams = {stream.index: f"{stream.index} {stream.kind} {stream.codec}" for stream in info.streams}
    return {
        "write": str(target),
        "encode": f"{plan.encoder} {plan.pix_fmt} {options}".strip(),
        "copy": [streams[index] for index in plan.kept],
        "convert": [f"{streams[entry.index]} to {entry.in_words}" for entry in plan.converted],
        "warn": plan_warnings(plan),
    }


def _tag(names: Mapping[int, str], code: int) -> str:
    return "not tagged" if code == UNTAGGED else names.get(code, f"code {code}")


def _describe(picture: Rectangle, info: FilmInfo) -> str:
    if picture.fills(info.picture.height_px, info.picture.width_px):
        return "no bars"
    return f"{picture.width_px}x{picture.height_px} px at ({picture.left}, {picture.top})"
