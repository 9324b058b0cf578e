"""Photographs for training: found, checked, and decoded once to uint8 pixels that the loop draws from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from archivecolor.errors import DataError

log = logging.getLogger(__name__)

PHOTO_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
SMALLEST_SIDE_PX = 32
GREY_SPREAD = 3.0
"""A photograph whose mean max(R,G,B) - min(R,G,B), 0..255, is under this has no colour to teach."""

Array = npt.NDArray[np.uint8]
Cache = Literal["none", "disk", "ram", "device"]
OnProgress = Callable[[int, int], None]

_DECODED_AT_ONCE = 256
_ABANDONED_AFTER_S = 600.0


@dataclass(frozen=True)
class LeftOut:
    """A file that is not trained on, and why."""

    path: Path
    reason: str


@dataclass
class PhotoSet:
    """Decoded photographs, squashed to a square as the paper does and as film frames are at inference.

    ``pixels`` is (N, S, S, 3) uint8 RGB: a memory map, an array, or a tensor that lives on the training device; None
    decodes each photograph when it is drawn. ``groups`` gives each photograph's folder, for balancing; ``names`` its
    place below the folder that was asked for, which stays when the data moves; ``left_out`` what could not be used.
    """

    paths: list[Path]
    groups: list[str]
    pixels: Array | Tensor | None
    size_px: int
    names: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    workers: int = 4

    def __post_init__(self) -> None:
        self.names = self.names or [str(path) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def left_out_note(self) -> str:
        """How many images could not be used, and why, in one line; empty where all could."""
        counts = Counter(entry.reason for entry in self.left_out)
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
        return f"{len(self.left_out)} images left out ({reasons})" if counts else ""

    @property
    def fingerprint(self) -> str:
        """Differs for sets that differ in the photographs they hold or in their order."""
        return hashlib.sha256("\n".join(self.names).encode(errors="surrogateescape")).hexdigest()[:16]

    def fetch(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """(len(indices), S, S, 3) uint8 RGB on ``device``; raises `DataError` if a photograph has become unreadable."""
        if isinstance(self.pixels, Tensor):
            return self.pixels[torch.as_tensor(indices, device=self.pixels.device)].to(device)
        if self.pixels is None:
            with ThreadPoolExecutor(max(1, self.workers)) as pool:
                batch = np.stack(list(pool.map(self._decode, indices)))
        else:
            batch = self.pixels[np.asarray(indices)]
        tensor = torch.from_numpy(batch)
        if device.type == "cuda":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)

    def _decode(self, index: int) -> Array:
        try:
            return _read_square(self.paths[index], self.size_px)
        except DataError as error:
            raise DataError(f"{self.paths[index]}: {error}; it was whole when the run began") from error


def find_photos(directories: Sequence[Path]) -> tuple[list[Path], list[str], list[str]]:
    """Every image file below ``directories``, sorted.

    Returns:
        Their paths, the folder that each belongs to, and their names below the directory asked for.

    Raises:
        DataError: a directory is missing or none of them holds an image.
    """
    paths: list[Path] = []
    groups: list[str] = []
    names: list[str] = []
    for root in directories:
        if not root.is_dir():
            raise DataError(f"{root}: not a folder of photographs")
        name = root.resolve().name  # the same whether it is called ".", by a link or by its own name
        for path in sorted(p for p in _files_below(root) if p.suffix.lower() in PHOTO_EXTENSIONS and p.is_file()):
            relative = path.relative_to(root)
            paths.append(path)
            groups.append(f"{name}/{relative.parts[0]}" if len(relative.parts) > 1 else name)
            names.append(f"{name}/{relative.as_posix()}")
    if not paths:
        looked_for = ", ".join(sorted(PHOTO_EXTENSIONS))
        raise DataError(f"{', '.join(map(str, directories))}: no photographs found (looked for {looked_for})")
    return paths, groups, names


def _files_below(root: Path) -> Iterator[Path]:
    """Every file in the tree, also behind links to folders, each folder once."""
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            subfolders.clear()
            continue
        seen.add(real)
        yield from (Path(folder) / name for name in files)


def _read_square(path: Path, size_px: int) -> Array:
    """The photograph squashed to (size_px, size_px, 3) uint8 RGB; raises `DataError` with the bare reason."""
    try:
        encoded = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error
    try:
        bgr = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    except cv2.error:  # dimensions beyond OpenCV's limits
        bgr = None
    if bgr is None:
        raise DataError("not a readable image")
    if min(bgr.shape[:2]) < SMALLEST_SIDE_PX:
        raise DataError(f"smaller than {SMALLEST_SIDE_PX} px")
    shrinks = bgr.shape[0] >= size_px and bgr.shape[1] >= size_px
    bgr = cv2.resize(bgr, (size_px, size_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if float((bgr.max(axis=2).astype(np.int16) - bgr.min(axis=2)).mean()) < GREY_SPREAD:
        raise DataError("grey")
    return np.ascontiguousarray(bgr[:, :, ::-1], dtype=np.uint8)


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/archivecolor/photos`` or its usual default."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "archivecolor" / "photos"


def load_photos(
    directories: Sequence[Path],
    size_px: int,
    *,
    cache: Cache = "disk",
    cache_dir: Path | None = None,
    device: torch.device | None = None,
    workers: int = 4,
    on_progress: OnProgress | None = None,
) -> PhotoSet:
    """Find, check and decode the photographs below ``directories``.

    Args:
        size_px: side of the square that each is squashed to (area averaging, as a film frame is).
        cache: ``disk`` keeps the decoded pixels in ``cache_dir`` and maps them; ``ram`` reads that file into memory
            and ``device`` onto the training device; ``none`` keeps only which photographs are usable, and decodes
            each one whenever it is drawn.
        workers: threads that decode.
        on_progress: called with (done, total) while photographs are decoded.

    Raises:
        DataError: nothing usable, or no room for the cache; the message says what was looked for or is needed.
    """
    paths, groups, names = find_photos(directories)
    folder = cache_dir or default_cache_dir()
    key = _cache_key(paths, size_px)
    pixels_path, index_path = folder / f"{key}.pixels", folder / f"{key}.json"

    index = _read_index(index_path, pixels_path, size_px, with_pixels=cache != "none")
    if index is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            index = _decode_all(paths, size_px, pixels_path, index_path, cache != "none", workers, on_progress)
        except OSError as error:
            raise DataError(f"{folder}: the cache cannot be written ({error}); choose another --cache-dir") from error
    kept, left_out = index
    if not kept:
        reasons = ", ".join(sorted({reason for _, reason in left_out}))
        raise DataError(f"{', '.join(map(str, directories))}: none of {len(paths)} images is usable ({reasons})")

    pixels: Array | Tensor | None = None
    if cache != "none":
        shape = (len(kept), size_px, size_px, 3)
        pixels = np.memmap(pixels_path, np.uint8, "r", shape=shape)
        if cache in ("ram", "device"):
            pixels = np.array(pixels)
        if cache == "device":
            pixels = torch.from_numpy(pixels).to(device or torch.device("cpu"))
    return PhotoSet(
        [paths[i] for i in kept],
        [groups[i] for i in kept],
        pixels,
        size_px,
        names=[names[i] for i in kept],
        left_out=[LeftOut(paths[i], reason) for i, reason in left_out],
        workers=workers,
    )


Index = tuple[list[int], list[tuple[int, str]]]
"""Positions of the usable photographs, and of the others with the reason."""


def _cache_key(paths: Sequence[Path], size_px: int) -> str:
    digest = hashlib.sha256(f"v2 {size_px} {SMALLEST_SIDE_PX} {GREY_SPREAD}".encode())
    for path in paths:
        stat = path.stat()
        digest.update(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _read_index(index_path: Path, pixels_path: Path, size_px: int, *, with_pixels: bool) -> Index | None:
    """The cache's index, or None where the cache is missing or not whole."""
    try:
        index = json.loads(index_path.read_text())
        kept, left_out = list(index["kept"]), [(int(i), str(reason)) for i, reason in index["left_out"]]
        if with_pixels and pixels_path.stat().st_size != len(kept) * size_px * size_px * 3:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept, left_out


def _decode_all(
    paths: Sequence[Path],
    size_px: int,
    pixels_path: Path,
    index_path: Path,
    keep_pixels: bool,
    workers: int,
    on_progress: OnProgress | None,
) -> Index:
    """Decode every photograph into one file; pixels and index appear under their names only when they are whole."""
    _remove_abandoned(pixels_path.parent)
    needed, free = len(paths) * size_px * size_px * 3, shutil.disk_usage(pixels_path.parent).free
    if keep_pixels and needed > free:
        raise DataError(
            f"{pixels_path.parent}: the cache of {len(paths)} photographs needs {needed / 1e6:,.1f} MB and "
            f"{free / 1e6:,.1f} MB are free; choose another --cache-dir, or --cache none"
        )
    partial = pixels_path.with_suffix(f".{os.getpid()}.partial")
    kept: list[int] = []
    left_out: list[tuple[int, str]] = []

    def read(path: Path) -> Array | str:
        try:
            return _read_square(path, size_px)
        except DataError as error:
            return str(error)

    try:
        with ThreadPoolExecutor(max(1, workers)) as pool, partial.open("wb") as file:
            for start in range(0, len(paths), _DECODED_AT_ONCE):
                several = paths[start : start + _DECODED_AT_ONCE]
                for i, result in enumerate(pool.map(read, several), start):
                    if isinstance(result, str):
                        left_out.append((i, result))
                    else:
                        kept.append(i)
                        if keep_pixels:
                            file.write(result.tobytes())
                if on_progress:
                    on_progress(start + len(several), len(paths))
        if keep_pixels and kept:
            partial.replace(pixels_path)
        index_partial = index_path.with_suffix(f".index.{os.getpid()}.partial")
        index_partial.write_text(json.dumps({"kept": kept, "left_out": left_out}))
        index_partial.replace(index_path)
    finally:
        partial.unlink(missing_ok=True)
    return kept, left_out


def _remove_abandoned(folder: Path) -> None:
    """Delete what a killed run left half decoded; one at work appends every few seconds."""
    for partial in folder.glob("*.partial"):
        try:
            if time.time() - partial.stat().st_mtime > _ABANDONED_AFTER_S:
                partial.unlink()
        except FileNotFoundError:
            continue
