"""Error of ab brought up from the network's size, near edges of the true ab and elsewhere, for each way of doing it.

Each photograph's ab is averaged down to a square of the network's size and brought up again. Edges are where the
gradient of ab, smoothed by one pixel, exceeds 3 a pixel; near is within 4 px.

python benchmarks/chroma_upsampling.py PHOTOS [--network-size 256] [--images 100] [--grain 0]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from archivecolor import color
from archivecolor.colorize.engine import resize_area
from archivecolor.colorize.upsampling import ChromaUpsampling, upsample_ab

METHODS: tuple[ChromaUpsampling, ...] = ("bilinear", "bicubic", "guided")
EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp"}


def near_edges(ab: np.ndarray) -> np.ndarray:
    """(H, W) bool of (2, H, W)."""
    steepness = 0
    for plane in ab:
        smooth = cv2.GaussianBlur(plane, (0, 0), 1.0)
        for dx, dy in ((1, 0), (0, 1)):
            steepness = steepness + cv2.Sobel(smooth, cv2.CV_32F, dx, dy, scale=1 / 8) ** 2
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    return cv2.dilate((np.sqrt(steepness) > 3).astype(np.uint8), disc) > 0


def main() -> None:
    """Print mean |error| of a and b for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--network-size", type=int, default=256)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--grain", type=float, default=0.0, help="deviation of noise on L, which guided follows")
    options = parser.parse_args()
    files = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in EXTENSIONS)
    chosen = [files[i * len(files) // options.images] for i in range(options.images)] if files else []
    errors: dict[str, list[tuple[float, float]]] = {method: [] for method in METHODS}
    noise = torch.Generator().manual_seed(0)
    for path in chosen:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        rgb = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
        lab = color.rgb_to_lab(rgb)
        ab, L = lab[:, 1:], lab[:, :1] + options.grain * torch.randn(lab[:, :1].shape, generator=noise)
        edges = near_edges(ab[0].numpy())
        if not 0.002 < edges.mean() < 0.998:
            continue
        small = resize_area(ab, options.network_size, options.network_size)
        for method in METHODS:
            error = (upsample_ab(small, *ab.shape[-2:], method, L) - ab)[0].abs().mean(0).numpy()
            errors[method].append((float(error[edges].mean()), float(error[~edges].mean())))
    print(f"{len(errors['bilinear'])} photographs, network size {options.network_size}, grain {options.grain:g}")
    base = np.mean(errors["bilinear"], axis=0)
    for method, values in errors.items():
        near, elsewhere = np.mean(values, axis=0)
        change = np.mean(values, axis=0) / base - 1
        print(f"{method:9s} near edges {near:.3f} ({change[0]:+.1%})  elsewhere {elsewhere:.3f} ({change[1]:+.1%})")


if __name__ == "__main__":
    main()
