"""Sample grids: what the generator makes of a few photographs, as one PNG."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from archivecolor import color
from archivecolor.errors import DataError
from archivecolor.training.checkpoints import writing

GAP_PX = 4


def save_samples(path: Path, lab: Tensor, true_lab: Tensor) -> None:
    """Write a PNG with one row a photograph: grey, colourised, true.

    Args:
        lab: (N, 3, H, W) Lab with the generator's chroma.
        true_lab: the photographs.

    Raises:
        DataError: the file cannot be written.
    """
    grey = true_lab.clone()
    grey[:, 1:] = 0
    save_grid(path, [color.lab_to_rgb(column.float()) for column in (grey, lab, true_lab)])


def save_grid(path: Path, columns: list[Tensor]) -> None:
    """Write R'G'B' 0..1 images as a PNG; each of ``columns`` is (N, 3, H, W), one image a row."""
    cells = torch.stack([(column * 255).round().to(torch.uint8).cpu() for column in columns], dim=1)
    n, m, _, h, w = cells.shape
    canvas = np.full((n * (h + GAP_PX) - GAP_PX, m * (w + GAP_PX) - GAP_PX, 3), 255, dtype=np.uint8)
    for row in range(n):
        for column in range(m):
            y, x = row * (h + GAP_PX), column * (w + GAP_PX)
            canvas[y : y + h, x : x + w] = cells[row, column].permute(1, 2, 0).numpy()
    whole, encoded = cv2.imencode(".png", np.ascontiguousarray(canvas[:, :, ::-1]))
    if not whole:
        raise DataError(f"{path}: the picture cannot be encoded")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(encoded.tobytes())
        partial.replace(path)
