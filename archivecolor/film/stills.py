"""Stills in and out: PNG, JPEG and TIFF, 8 and 16 bit; colour is reduced to luma on the way in."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from archivecolor.errors import FilmEncodeError, FilmOpenError, missing
from archivecolor.film.pixels import Plane, rgb_to_luma
from archivecolor.film.still_tags import StillTags, tagged_jpeg, tagged_png, tagged_tiff

STILL_EXTENSIONS: Final = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
JPEG_QUALITY: Final = 95
_NEUTRAL_CODES: Final = 2.0


@dataclass(frozen=True)
class Still:
    """A still's luma, (H, W) uint8 or uint16, full range, the right way up.

    ``chroma_deviation`` is half the mean of max - min over R', G', B' in 8-bit code values: near 0 for a
    black-and-white original. ``warnings`` says what of the original is left out.
    """

    path: Path
    luma: Plane
    bit_depth: int
    chroma_deviation: float
    warnings: tuple[str, ...] = ()

    @property
    def was_neutral(self) -> bool:
        """Whether the original was black-and-white already."""
        return self.chroma_deviation <= _NEUTRAL_CODES


def is_still(path: Path) -> bool:
    """Whether ``path`` is a still by its extension."""
    return Path(path).suffix.lower() in STILL_EXTENSIONS


def read_still(path: Path) -> Still:
    """Read a still, turned as its EXIF orientation says; colour is weighed to luma with BT.601 (as JPEG does).

    Raises `FilmOpenError` for a file that is missing, empty, cut short, not an image, or too large to decode.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise FilmOpenError(f"{path}: is a pipe or a device, not a still")
    try:
        raw = np.fromfile(path, np.uint8)
    except FileNotFoundError as error:
        raise FilmOpenError(missing(path)) from error
    except IsADirectoryError as error:
        raise FilmOpenError(f"{path}: is a folder, not a still") from error
    except OSError as error:
        raise FilmOpenError(f"{path}: cannot be read ({error.strerror})") from error
    if raw.size == 0:
        raise FilmOpenError(f"{path}: the file is empty (0 bytes); copy it again from its source")
    _require_whole(path, raw)
    # IMREAD_UNCHANGED would keep alpha but ignore the orientation; ANYDEPTH | ANYCOLOR does the reverse.
    image = _decode(path, raw, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    if image.dtype not in (np.uint8, np.uint16):
        raise FilmOpenError(f"{path}: {image.dtype} samples; convert it to 8 or 16 bit integers first")
    bits = image.dtype.itemsize * 8
    if image.ndim == 2:
        return Still(path, image, bits, 0.0, _left_out(path, raw))
    blue, green, red = image[:, :, 0], image[:, :, 1], image[:, :, 2]
    wide = image[:, :, :3].astype(np.int32)
    deviation = float((wide.max(axis=2) - wide.min(axis=2)).mean()) / 2 / (1 << (bits - 8))
    return Still(path, rgb_to_luma(red, green, blue, "bt470bg"), bits, deviation, _left_out(path, raw))


def _left_out(path: Path, raw: npt.NDArray[np.uint8]) -> tuple[str, ...]:
    """What `read_still` does not read of a file: a PNG's transparency, a TIFF's further pages."""
    warnings = []
    png_colour_type = raw[25] if raw[:4].tobytes() == b"\x89PNG" else 0
    if png_colour_type in (4, 6):
        warnings.append(f"{path.name}: the picture's transparency is left out")
    if raw[:2].tobytes() in (b"II", b"MM"):
        with _silence():
            has_second, _ = cv2.imdecodemulti(raw, cv2.IMREAD_REDUCED_GRAYSCALE_8, range=(1, 2))
        if has_second:
            warnings.append(f"{path.name}: holds several pages; only the first was taken")
    return tuple(warnings)


def _require_whole(path: Path, raw: npt.NDArray[np.uint8]) -> None:
    """OpenCV decodes what is there of a file that was cut short, without a word; refuse it."""
    head, tail = raw[:8].tobytes(), raw[-64:].tobytes()
    if head.startswith(b"\xff\xd8") and b"\xff\xd9" not in raw[-65536:].tobytes():
        raise FilmOpenError(f"{path}: the JPEG is cut short; copy it again")
    if head.startswith(b"\x89PNG"):
        if b"IEND" not in raw[-65536:].tobytes() and b"IEND" not in tail:
            raise FilmOpenError(f"{path}: the PNG is cut short; copy it again")
        _require_sound_png(path, raw.data)


def _require_sound_png(path: Path, data: memoryview) -> None:
    """Raise `FilmOpenError` where a chunk that matters has a wrong checksum; libpng would tell stderr about it."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        kind = bytes(data[at + 4 : at + 8])
        if kind[0] & 0x20 == 0 and zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4]):
            name = kind.decode("ascii", "replace")
            raise FilmOpenError(f"{path}: the PNG is damaged (checksum of {name!r}); copy it again")
        if kind == b"IEND":
            return
        at = end + 4


@contextmanager
def _silence() -> Iterator[None]:
    """OpenCV's words would come before our one line."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _decode(path: Path, raw: npt.NDArray[np.uint8], flags: int) -> npt.NDArray[Any]:
    try:
        with _silence():
            image = cv2.imdecode(raw, flags)
    except cv2.error as error:
        reason = "too large to decode" if "CV_IO_MAX_IMAGE" in str(error) else "cannot be decoded"
        raise FilmOpenError(f"{path}: {reason}; is it complete?") from error
    if image is None:
        raise FilmOpenError(f"{path}: not an image that can be read, or cut short; is it complete?")
    return np.asarray(image)


def write_still(
    path: Path,
    rgb: npt.NDArray[Any],
    extension: str | None = None,
    shown_as: Path | None = None,
    tags: StillTags | None = None,
) -> None:
    """Write R'G'B', (H, W, 3) uint8 or uint16, full range, to exactly ``path``.

    ``extension`` (``.png``, ``.jpg``, ``.tif``) chooses the encoder where ``path`` has a temporary name, and
    ``shown_as`` is the name that errors give then. ``tags`` are the source's; the digital source type is written even
    without. PNG and TIFF (deflate) keep 16 bits; JPEG is 8 bit, 4:4:4, quality 95. Raises `FilmEncodeError`.
    """
    path = Path(path)
    kind = (extension or path.suffix).lower()
    if kind not in STILL_EXTENSIONS:
        raise FilmEncodeError(f"{path}: stills are written as {', '.join(sorted(STILL_EXTENSIONS))}; not as {kind!r}")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"a still is (H, W, 3) uint8 or uint16, not {rgb.shape} {rgb.dtype}")
    tags = tags or StillTags()
    if kind in (".jpg", ".jpeg"):
        if rgb.dtype == np.uint16:
            rgb = ((rgb.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        options = [
            cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ]  # fmt: skip
        content = tagged_jpeg(_encode(shown_as or path, kind, rgb, options), tags)
    elif kind == ".png":
        content = tagged_png(_encode(shown_as or path, kind, rgb, []), tags)
    else:
        content = tagged_tiff(rgb, tags)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise FilmEncodeError(f"{shown_as or path}: cannot be written: {error.strerror}") from error


def _encode(path: Path, kind: str, rgb: npt.NDArray[Any], options: list[int]) -> bytes:
    try:
        whole, encoded = cv2.imencode(kind, np.ascontiguousarray(rgb[:, :, ::-1]), options)
    except cv2.error as error:
        raise FilmEncodeError(f"{path}: cannot be encoded as {kind}: {error}") from error
    if not whole:
        raise FilmEncodeError(f"{path}: cannot be encoded as {kind}")
    return encoded.tobytes()
