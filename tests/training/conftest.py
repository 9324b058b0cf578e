"""Photographs that the training tests make for themselves, and networks small enough to train in a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from archivecolor.config import TrainConfig
from archivecolor.training.data import PhotoSet


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Networks of this size are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_photo(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A landscape of sorts, (height, width, 3) uint8 RGB: blue above, green below, a warm disc."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    horizon = height * random.uniform(0.3, 0.7)
    photo = np.where((y < horizon)[..., None], [90, 140, 220], [70, 150, 60]).astype(np.float32)
    cy, cx, radius = random.uniform(0, height), random.uniform(0, width), height * random.uniform(0.1, 0.3)
    photo[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = [210, 90, 50]
    photo *= random.uniform(0.6, 1.1) * (0.8 + 0.2 * np.sin(x / 5))[..., None]
    return (photo + random.normal(0, 6, photo.shape)).clip(0, 255).astype(np.uint8)


def write_photo(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(rgb[:, :, ::-1]))


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """Twelve photographs in two class folders of different size."""
    folder = tmp_path / "photos"
    for i in range(12):
        write_photo(folder / ("hills" if i < 9 else "sea") / f"{i:02}.png", make_photo(i))
    return folder


@pytest.fixture
def tiny_config() -> TrainConfig:
    return TrainConfig(
        preset="bn-sn",
        size_px=32,
        batch_size=4,
        images=48,
        generator_widths=(8, 12),
        discriminator_widths=(8, 8, 8, 8),
        val_fraction=0.25,
    )


def make_tiny_photos(size_px: int = 32) -> PhotoSet:
    """Sixteen decoded photographs in two folders, held in memory."""
    pixels = np.stack([make_photo(i, size_px, size_px) for i in range(16)])
    paths = [Path(f"{'hills' if i < 12 else 'sea'}/{i}.png") for i in range(16)]
    return PhotoSet(paths, [path.parent.name for path in paths], pixels, size_px)


@pytest.fixture
def tiny_photos() -> PhotoSet:
    return make_tiny_photos()
