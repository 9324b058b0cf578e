"""Photographs for training: found, decoded once to uint8, and drawn in an order that the seed and the step decide."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class LeftOut:
    """A file that is not trained on, and why."""

    path: Path
    reason: str


@dataclass
class PhotoSet:
    """Decoded photographs, squashed to a square as the paper does and as film frames are at inference.

    ``pixels`` is (N, S, S, 3) uint8 RGB: a memory map, an array, or a tensor that lives on the training device.
    ``groups`` gives each photograph's folder, for balancing; ``left_out`` what could not be used.
    """

    paths: list[Path]
    groups: list[str]
    pixels: Array | Tensor | None
    size_px: int
    left_out: list[LeftOut] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """(len(indices), S, S, 3) uint8 RGB on ``device``."""
        if isinstance(self.pixels, Tensor):
            return self.pixels[torch.as_tensor(indices, device=self.pixels.device)].to(device)
        if self.pixels is None:
            batch = np.stack([_read_square(self.paths[i], self.size_px) for i in indices])
        else:
            batch = self.pixels[np.asarray(indices)]
        tensor = torch.from_numpy(batch)
        if device.type == "cuda":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)


def find_photos(directories: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Every image file below ``directories``, sorted, with the folder that each belongs to.

    Raises:
        DataError: a directory is missing or none of them holds an image.
    """
    paths: list[Path] = []
    groups: list[str] = []
    for root in directories:
        if not root.is_dir():
            raise DataError(f"{root}: not a folder of photographs")
        for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in PHOTO_EXTENSIONS and p.is_file()):
            relative = path.relative_to(root)
            paths.append(path)
            groups.append(f"{root.name}/{relative.parts[0]}" if len(relative.parts) > 1 else root.name)
    if not paths:
        looked_for = ", ".join(sorted(PHOTO_EXTENSIONS))
        raise DataError(f"{', '.join(map(str, directories))}: no photographs found (looked for {looked_for})")
    return paths, groups


def _read_square(path: Path, size_px: int) -> Array:
    """The photograph squashed to (size_px, size_px, 3) uint8 RGB; raises `DataError` with the bare reason."""
    try:
        encoded = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error
    bgr = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    if bgr is None:
        raise DataError("not a readable image")
    if min(bgr.shape[:2]) < SMALLEST_SIDE_PX:
        raise DataError(f"smaller than {SMALLEST_SIDE_PX} px")
    shrinks = bgr.shape[0] >= size_px and bgr.shape[1] >= size_px
    bgr = cv2.resize(bgr, (size_px, size_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if float((bgr.max(axis=2).astype(np.int16) - bgr.min(axis=2)).mean()) < GREY_SPREAD:
        raise DataError("grey")
    return np.ascontiguousarray(bgr[:, :, ::-1], dtype=np.uint8)


def _cache_key(paths: Sequence[Path], size_px: int) -> str:
    digest = hashlib.sha256(f"v1 {size_px}".encode())
    for path in paths:
        stat = path.stat()
        digest.update(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


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
    on_progress: Callable[[int, int], None] | None = None,
) -> PhotoSet:
    """Find, check and decode the photographs below ``directories``.

    Args:
        size_px: side of the square that each is squashed to (area averaging, as a film frame is).
        cache: ``disk`` keeps the decoded pixels in ``cache_dir`` and maps them; ``ram`` holds them in memory;
            ``device`` on the training device; ``none`` decodes each photograph whenever it is drawn.
        on_progress: called with (done, total) while photographs are decoded.

    Raises:
        DataError: nothing usable; the message says what was looked for and what was left out.
    """
    paths, groups = find_photos(directories)
    folder = cache_dir or default_cache_dir()
    key = _cache_key(paths, size_px)
    pixels_path, index_path = folder / f"{key}.npy", folder / f"{key}.json"

    if not index_path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _decode_all(paths, size_px, pixels_path, index_path, keep_pixels=cache != "none", workers=workers,
                    on_progress=on_progress)  # fmt: skip
    elif cache != "none" and not pixels_path.exists():
        index_path.unlink()
        return load_photos(directories, size_px, cache=cache, cache_dir=cache_dir, device=device,
                           workers=workers, on_progress=on_progress)  # fmt: skip

    index = json.loads(index_path.read_text())
    kept: list[int] = index["kept"]
    left_out = [LeftOut(paths[i], reason) for i, reason in index["left_out"]]
    if not kept:
        reasons = ", ".join(sorted({entry.reason for entry in left_out}))
        raise DataError(f"{', '.join(map(str, directories))}: none of {len(paths)} images is usable ({reasons})")

    pixels: Array | Tensor | None = None
    if cache != "none":
        pixels = np.load(pixels_path, mmap_mode="r" if cache == "disk" else None)
    if cache == "device":
        pixels = torch.from_numpy(pixels).to(device or torch.device("cpu"))
    return PhotoSet([paths[i] for i in kept], [groups[i] for i in kept], pixels, size_px, left_out)


def _decode_all(
    paths: Sequence[Path],
    size_px: int,
    pixels_path: Path,
    index_path: Path,
    *,
    keep_pixels: bool,
    workers: int,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Decode every photograph into one array on disk; written under temporary names, renamed when whole."""
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
            np.lib.format.write_array_header_1_0(file, _header(0, len(paths), size_px))
            header_bytes = file.tell()
            for start in range(0, len(paths), 256):
                for i, result in enumerate(pool.map(read, paths[start : start + 256]), start):
                    if isinstance(result, str):
                        left_out.append((i, result))
                        continue
                    kept.append(i)
                    if keep_pixels:
                        file.write(result.tobytes())
                if on_progress:
                    on_progress(min(start + 256, len(paths)), len(paths))
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, _header(len(kept), len(paths), size_px))
            if file.tell() != header_bytes:
                raise DataError(f"{partial}: the cache's header changed size; please report this")
        if keep_pixels:
            partial.replace(pixels_path)
        index_partial = index_path.with_suffix(f".{os.getpid()}.partial")
        index_partial.write_text(json.dumps({"kept": kept, "left_out": left_out}))
        index_partial.replace(index_path)
    finally:
        partial.unlink(missing_ok=True)


def _header(count: int, most: int, size_px: int) -> dict[str, object]:
    # numpy pads headers to 64 bytes, which leaves room for the count to grow in place
    del most
    return {"descr": "|u1", "fortran_order": False, "shape": (count, size_px, size_px, 3)}


def split_photos(count: int, val_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices for training and for validation: a seeded split that is the same at every start."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = min(count - 1, round(count * val_fraction))
    return sorted(order[held_out:]), sorted(order[:held_out])


class Sampler:
    """Which photographs make up which step's batch, as a function of seed and step alone, so that resuming is exact.

    ``balance`` 0 visits each photograph once an epoch; above that, an epoch draws with replacement, a photograph
    of a folder of n with a weight of n^-balance.
    """

    def __init__(
        self, indices: Sequence[int], groups: Sequence[str], *, batch_size: int, balance: float, seed: int
    ) -> None:
        if batch_size > len(indices):
            raise DataError(f"a batch of {batch_size} needs at least as many photographs, not {len(indices)}")
        self.indices = torch.as_tensor(indices)
        self.batch_size, self.seed = batch_size, seed
        self.weights: Tensor | None = None
        if balance > 0:
            sizes: dict[str, int] = {}
            for i in indices:
                sizes[groups[i]] = sizes.get(groups[i], 0) + 1
            self.weights = torch.tensor([sizes[groups[i]] ** -balance for i in indices], dtype=torch.float64)
        self._epoch = -1
        self._order: Tensor = self.indices

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the data."""
        return len(self.indices) // self.batch_size

    def batch(self, step: int) -> list[int]:
        """Photograph indices of the batch that ``step`` (from 0) trains on."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(hash_seed(self.seed, 1, epoch))
            if self.weights is None:
                order = torch.randperm(len(self.indices), generator=generator)
            else:
                order = torch.multinomial(self.weights, len(self.indices), replacement=True, generator=generator)
            self._epoch, self._order = epoch, self.indices[order]
        start = position * self.batch_size
        return [int(i) for i in self._order[start : start + self.batch_size]]


def hash_seed(*parts: int) -> int:
    """A 63-bit seed that differs for different ``parts``."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
