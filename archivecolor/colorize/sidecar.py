"""The record beside an output, ``OUT.json``: what was made of what, with which model and settings, and what was met."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from archivecolor import __version__
from archivecolor.colorize.atomic import atomic_output
from archivecolor.config import ColorizeConfig
from archivecolor.disk import file_sha256
from archivecolor.errors import DataError, FilmEncodeError, FilmOpenError
from archivecolor.film import DIGITAL_SOURCE_TYPE, FilmInfo, OutputPlan, OutputSettings, is_pattern, sequence_files
from archivecolor.weights import find_weights, verify

VERSION: Final = 1
_STATEMENT: Final = (
    "The colour was made by a trained model and is not a record of the colours that were before the camera; the "
    "lightness is the source's. This is an access version, not a replacement of the original."
)


MADE_BY: Final = "Colour made by archivecolor"
"""What the comment in a film's container begins with."""


class Model(Protocol):
    """The weights that an output's colours come from."""

    @property
    def weights_path(self) -> Path:
        """Their file."""

    @property
    def weights_sha256(self) -> str:
        """Its SHA-256, hexadecimal."""


@dataclass(frozen=True)
class WeightsFile:
    """A `Model` that is known but not loaded."""

    weights_path: Path
    weights_sha256: str

    @classmethod
    def find(cls, name: str | None) -> WeightsFile:
        """The weights of this name; raises `WeightsError`."""
        path = find_weights(name)
        return cls(path, verify(path))


def sidecar_path(output: Path) -> Path:
    """Where the record of ``output`` lies: its own name with ``.json`` behind it."""
    return output.with_name(f"{output.name}.json")


def fixity(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file; of an image sequence, the SHA-256 of its files' names and SHA-256s."""
    if not (path.is_dir() or is_pattern(path)):
        return {"size_bytes": path.stat().st_size, "sha256": file_sha256(path)}
    files = list(sequence_files(path).values())
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file_sha256(file)}\n".encode(errors="surrogateescape"))
    return {"size_bytes": sum(file.stat().st_size for file in files), "sha256": digest.hexdigest()}


class FixityInBackground:
    """`fixity` of a source, computed in a thread of its own while the source is being coloured."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Any] = {}
        self._error: OSError | FilmOpenError | None = None
        self._thread = threading.Thread(target=self._work, name="fixity", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._found = fixity(self._path)
        except (OSError, FilmOpenError) as error:
            self._error = error

    def result(self) -> dict[str, Any]:
        """Wait for it; raises `FilmOpenError` where the source could not be read to its end."""
        self._thread.join()
        if isinstance(self._error, FilmOpenError):
            raise self._error
        if self._error is not None:
            raise FilmOpenError(f"{self._path}: cannot be read ({self._error.strerror})") from self._error
        return self._found


def record_of(
    *,
    source: Path,
    source_fixity: dict[str, Any],
    output: Path,
    written: Path,
    model: Model,
    device: str,
    precision: str,
    config: ColorizeConfig,
    settings: OutputSettings | None,
    seconds: float,
    frames: dict[str, int],
    warnings: list[str],
    **more: Any,
) -> dict[str, Any]:
    """The record of one output, ready for JSON.

    ``written`` is the finished output under whatever name it has now, ``more`` what only films have (the picture's
    encoding, streams, time). A still has no output ``settings``.
    """
    finished = datetime.now(UTC)
    return {
        "sidecar_version": VERSION,
        "tool": {"name": "archivecolor", "version": __version__},
        "digital_source_type": DIGITAL_SOURCE_TYPE,
        "statement": _STATEMENT,
        "model": {"name": model.weights_path.stem, "sha256": model.weights_sha256},
        "source": {"path": str(source.absolute()), **source_fixity},
        "output": {"name": output.name, **fixity(written)},
        "settings": {
            **asdict(config),
            "device_used": device,
            "precision_used": precision,
            "output": asdict(settings) if settings is not None else {},
            "fingerprint": settings_fingerprint(model, config, settings or OutputSettings()),
        },
        "frames": frames,
        **more,
        "warnings": warnings,
        "times": {
            "started": (finished - timedelta(seconds=seconds)).isoformat(timespec="seconds"),
            "finished": finished.isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
        },
    }


def settings_fingerprint(model: Model, config: ColorizeConfig, settings: OutputSettings) -> str:
    """Eight hexadecimal digits that change with anything that decides what an output looks like."""
    size, steadying = (
        (config.render_size_px, config.fit),
        (config.temporal, config.shot_consistency, config.network_frames),
    )
    made = (model.weights_sha256, config.precision, size, config.saturation, config.recombine, steadying)
    cut = (config.start_s, config.end_s, config.fps)
    return hashlib.sha256(repr((made, config.chroma_upsampling, cut, config.fields, settings)).encode()).hexdigest()[:8]


def frame_counts(counts: Mapping[str, int], written: int) -> dict[str, int]:
    """What the record says of frames, by what became of them; ``counts`` is what reading and colouring met."""
    return {
        "read": counts["frames"],
        "written": written,
        "undecodable": counts["undecodable_packets"],
        "damaged": counts["corrupt_frames"],
        "repeated": counts["repeated"],
        "carried": counts["carried"],
        "deinterlaced": counts["deinterlaced"],
        "resized": counts["resized_frames"],
        "times_moved": counts["moved_timestamps"],
    }


def picture_record(info: FilmInfo, plan: OutputPlan) -> dict[str, Any]:
    """What the record says of the picture: as it was, and as it was encoded."""
    picture = info.picture
    return {
        "source_codec": info.codec,
        "source_pixel_format": picture.pix_fmt,
        "width_px": picture.width_px,
        "height_px": picture.height_px,
        "sample_aspect_ratio": str(picture.sample_aspect_ratio or "not tagged").replace("/", ":"),
        "encoder": plan.encoder,
        "encoder_options": plan.encoder_options,
        "pixel_format": plan.pix_fmt,
        "full_range": plan.full_range,
        "matrix": plan.matrix,
        "interlaced": plan.interlaced,
        "lossless": plan.lossless,
    }


def write_record(output: Path, record: dict[str, Any]) -> None:
    """Put the record beside ``output``; raises `FilmEncodeError` where that cannot be done."""
    target = sidecar_path(output)
    with atomic_output(target) as partial:
        try:
            text = json.dumps(record, indent=2, ensure_ascii=False)
            partial.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise FilmEncodeError(f"{target}: cannot be written: {error.strerror}") from error


def read_record(output: Path) -> dict[str, Any]:
    """The record beside ``output``, a file or a sequence's folder; raises `DataError` where there is none of ours."""
    path = sidecar_path(output)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{output}: has no sidecar {path.name} beside it; was it moved without it?") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: is not a sidecar that archivecolor wrote (no JSON)") from error
    if not isinstance(record, dict) or record.get("sidecar_version") != VERSION:
        raise DataError(f"{path}: is not a sidecar that this version of archivecolor knows")
    return record


def refuse_foreign_sidecar(output: Path) -> None:
    """Raise `FilmEncodeError` when a file that archivecolor did not write lies where the record would go."""
    if sidecar_path(output).exists():
        try:
            read_record(output)
        except DataError as error:
            raise FilmEncodeError(f"{error}; move it away, the record of {output.name} goes there") from error


def refuse_foreign_folder(folder: Path) -> None:
    """Raise `FilmEncodeError` for a folder with files in it, unless it is an output of ours that may be replaced."""
    try:
        if folder.is_dir() and any(folder.iterdir()):
            read_record(folder)
    except DataError as error:
        raise FilmEncodeError(
            f"{folder}: is not empty and not archivecolor's to replace; choose a new folder"
        ) from error
