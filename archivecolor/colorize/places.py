"""Films and image sequences behind one door: which reader a source needs, and which writer and place an output."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from archivecolor.config import ColorizeConfig
from archivecolor.errors import ConfigError
from archivecolor.film import (
    FilmInfo,
    FilmReader,
    FilmWriter,
    OutputPlan,
    OutputSettings,
    SequenceReader,
    SequenceWriter,
    is_pattern,
    plan_output,
    plan_sequence,
)


def is_sequence(path: Path) -> bool:
    """Whether a source is an image sequence: a pattern, or a folder."""
    return is_pattern(path) or path.is_dir()


def open_reader(
    source: Path, config: ColorizeConfig, from_s: Fraction | None = None, *, probed: FilmInfo | None = None
) -> FilmReader | SequenceReader:
    """A reader of the cut that ``config`` asks for, or of its frames from ``from_s`` on, on the source's clock.

    A film that was ``probed`` before, as `FilmReader.probed` has it, is not probed again.

    Raises `FilmOpenError`, and `ConfigError` for a sequence without a rate or a film with one.
    """
    if is_sequence(source):
        return SequenceReader(source, config.rate, start_s=config.start_s, end_s=config.end_s, from_s=from_s)
    if config.fps is not None:
        raise ConfigError(f"{source}: a film's frames have their own times; --fps is for image sequences")
    return FilmReader(
        probed or source,
        start_s=config.start_s,
        end_s=config.end_s,
        deinterlace=config.fields,
        resize=config.recombine != "luma",
        from_s=from_s,
    )


def plan_for(info: FilmInfo, output: Path, settings: OutputSettings) -> OutputPlan:
    """`plan_output` or, for a pattern, `plan_sequence`."""
    return plan_sequence(info, output, settings) if is_pattern(output) else plan_output(info, output, settings)


def place_of(output: Path) -> Path:
    """What appears once an output is whole: the film, or the folder that a pattern's frames fill."""
    return output.parent if is_pattern(output) else output


def open_writer(
    partial: Path,
    output: Path,
    info: FilmInfo,
    plan: OutputPlan,
    offset_s: Fraction,
    end_s: Fraction | None,
    tags: dict[str, str],
) -> FilmWriter | SequenceWriter:
    """A writer to ``partial``, which is going to be `place_of` ``output``; the cut's bounds on the source's clock."""
    if is_pattern(output):
        return SequenceWriter(partial, output, info, plan)
    return FilmWriter(partial, info, plan, offset_s=offset_s, end_s=end_s, extra_metadata=tags, shown_as=output)
