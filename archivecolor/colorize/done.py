"""Whether a job's output is there already, and is what the job would make of its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from archivecolor.colorize.places import is_sequence, open_reader, place_of
from archivecolor.colorize.sidecar import (
    MADE_BY,
    Model,
    fixity,
    read_record,
    refuse_foreign_folder,
    settings_fingerprint,
)
from archivecolor.config import ColorizeConfig
from archivecolor.errors import DataError, FilmEncodeError, FilmOpenError
from archivecolor.film import (
    FilmInfo,
    OutputSettings,
    is_pattern,
    is_still,
    picture_length_s,
    probe,
    read_still,
    sequence_files,
)


def is_made(
    source: Path, output: Path, model: Model, config: ColorizeConfig, settings: OutputSettings, *, go_on: bool
) -> bool:
    """Whether ``output`` was made of this very source with these settings, and is whole.

    False where there is none, or one of ours that is not whole, to be made again. With ``go_on`` any film or still of
    ours counts whose record does not say otherwise, without it only one whose record names the source.

    Raises:
        FilmOpenError: the source cannot be read.
        FilmEncodeError: what is there is another's, or of another source or other settings.
    """
    place = place_of(output)
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return False
    record = _record_of(place)
    comment = _comment_of(output) if record.get("source", {}).get("path") == str(source.absolute()) or go_on else None
    if comment is None or (is_pattern(output) and not record):
        refuse_foreign_folder(place)
        raise FilmEncodeError(f"{place}: is there already; use --overwrite to replace it")
    if record and not _is_of(record, source):
        raise FilmEncodeError(
            f"{place}: was made of another source, or of this one before it was changed; "
            "use --overwrite to make it again"
        )
    if not _has_settings(record, comment, settings_fingerprint(model, config, _settings_for(source, settings))):
        raise FilmEncodeError(f"{place}: was made with other settings; use --overwrite to make it again")
    if is_pattern(output):
        _require_as_written(output, record)
        return True
    return _is_whole(source, output, config)


def _record_of(place: Path) -> dict[str, Any]:
    try:
        return read_record(place)
    except DataError:
        return {}


def _is_of(record: dict[str, Any], source: Path) -> bool:
    """Whether the record says that its output was made of this content; the length tells most others, cheaply."""
    made_of = record.get("source", {})
    if not is_sequence(source) and made_of.get("size_bytes") != source.stat().st_size:
        return False
    return bool(made_of.get("sha256") == fixity(source)["sha256"])


def _comment_of(output: Path) -> str | None:
    """The tag that archivecolor left in a film, None where there is none; stills and sequences carry none, ``""``."""
    if is_still(output) or is_pattern(output):
        return ""
    try:
        metadata = probe(output).metadata
    except FilmOpenError:
        return None
    return next((text for key, text in metadata.items() if key.lower() == "comment" and MADE_BY in text), None)


def _settings_for(source: Path, settings: OutputSettings) -> OutputSettings:
    """A still has none."""
    return OutputSettings() if is_still(source) and not is_sequence(source) else settings


def _has_settings(record: dict[str, Any], comment: str, fingerprint: str) -> bool:
    made_with = record.get("settings", {}).get("fingerprint")
    if made_with is not None:
        return bool(made_with == fingerprint)
    return not comment or f"settings {fingerprint})" in comment


def _is_whole(source: Path, output: Path, config: ColorizeConfig) -> bool:
    """Whether a film or still can be read to its end, and ends where it should, to within two frames."""
    if is_still(source) and not is_sequence(source):
        if read_still(output).luma.shape != read_still(source).luma.shape:
            raise FilmEncodeError(f"{output}: is there already and another picture; use --overwrite to replace it")
        return True
    with open_reader(source, config) as reader:
        info = reader.info
    expected_s = _length_s(info)
    if config.end_s is not None:
        expected_s = min(config.end_s, expected_s)
    expected_s -= config.start_s or 0.0
    try:
        length_s = picture_length_s(probe(output))
    except FilmOpenError:
        return False
    frame_s = float(1 / info.average_rate) if info.average_rate else 0.04
    return abs(length_s - expected_s) <= 2 * frame_s


def _length_s(info: FilmInfo) -> float:
    return float((len(info.files) - 1) * info.time_base) if info.files else picture_length_s(info)


def _require_as_written(output: Path, record: dict[str, Any]) -> None:
    """Raise `FilmEncodeError` for a sequence, which appears as a whole, that has lost or gained frames since."""
    try:
        files = sequence_files(output).values()
        now = len(files), sum(file.stat().st_size for file in files)
    except FilmOpenError:
        now = 0, 0
    if now != (record["frames"]["written"], record["output"]["size_bytes"]):
        raise FilmEncodeError(f"{output}: is not as it was written; use --overwrite to make it again")
