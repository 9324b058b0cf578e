"""Measures on batches of Lab images, as the paper takes them (IV-C; DESIGN section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from archivecolor import color

AB_BINS = 219
AB_LOWEST = -110.0


def through_srgb(lab: Tensor) -> tuple[Tensor, Tensor]:
    """What a display would show of (N, 3, H, W) Lab: clipped to the sRGB gamut and rounded to 8 bit.

    Returns:
        The image as Lab again and as R'G'B' 0..255 (whole numbers), both float32 (N, 3, H, W).
    """
    rgb = (color.lab_to_rgb(lab) * 255).round()
    return color.rgb_to_lab(rgb / 255), rgb


def l1_ab(lab: Tensor, true_lab: Tensor) -> Tensor:
    """Mean |ab difference| of each image over both channels, in Lab units; (N,). Table I's L1."""
    return (lab[:, 1:] - true_lab[:, 1:]).abs().mean(dim=(1, 2, 3))


def psnr_ab(lab: Tensor, true_lab: Tensor) -> Tensor:
    """20 log10(255 / RMSE) over a and b of each image, in dB; (N,). Table I's PSNR."""
    return _psnr(lab[:, 1:] - true_lab[:, 1:])


def psnr_rgb(rgb: Tensor, true_rgb: Tensor) -> Tensor:
    """20 log10(255 / RMSE) over R', G', B' 0..255 of each image, in dB; (N,)."""
    return _psnr(rgb - true_rgb)


def _psnr(difference: Tensor) -> Tensor:
    mse = difference.double().square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return (10 * torch.log10(255.0**2 / mse)).float()


def colourfulness(rgb: Tensor, variant: Literal["signed", "absolute"] = "signed") -> Tensor:
    """Hasler and Süsstrunk's M3 (2003) of each (N, 3, H, W) R'G'B' 0..255 image; (N,).

    sqrt(var rg + var yb) + 0.3 sqrt(mean rg^2 + mean yb^2), with rg = R - G and yb = (R + G)/2 - B, both signed as
    they define them. The ``absolute`` variant, which several later papers report (DDColor, ColorMNet), takes absolute
    values of both first, and gives lower figures.
    """
    r, g, b = rgb.double().unbind(1)
    rg, yb = r - g, (r + g) / 2 - b
    if variant == "absolute":
        rg, yb = rg.abs(), yb.abs()
    spread = torch.sqrt(rg.var(dim=(1, 2), correction=0) + yb.var(dim=(1, 2), correction=0))
    offset = torch.sqrt(rg.mean(dim=(1, 2)).square() + yb.mean(dim=(1, 2)).square())
    return (spread + 0.3 * offset).float()


def ab_histogram(lab: Tensor) -> Tensor:
    """Counts of a and of b in 219 one-unit bins from -110, summed over the batch; (2, 219) float64. Fig. 4's bins."""
    bins = (lab[:, 1:] - AB_LOWEST).floor().long().clamp(0, AB_BINS - 1)
    return torch.stack([torch.bincount(bins[:, c].flatten(), minlength=AB_BINS) for c in (0, 1)]).double()


def histogram_intersection(histogram: Tensor, true_histogram: Tensor) -> float:
    """Mean over a and b of the overlap of two (2, 219) histograms, each taken as a distribution; 0..1."""
    p = histogram / histogram.sum(1, keepdim=True)
    q = true_histogram / true_histogram.sum(1, keepdim=True)
    return float(torch.minimum(p, q).sum(1).mean())


@dataclass
class Scores:
    """Running means of every measure over the images seen so far."""

    images: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    histogram: Tensor = field(default_factory=lambda: torch.zeros(2, AB_BINS, dtype=torch.float64))
    true_histogram: Tensor = field(default_factory=lambda: torch.zeros(2, AB_BINS, dtype=torch.float64))

    def update(
        self, lab: Tensor, true_lab: Tensor, perceptual: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> None:
        """Add a batch of predictions (N, 3, H, W) Lab beside their truth; both go through 8-bit sRGB first.

        ``perceptual`` gives L_perc of each image from two (N, 3, H, W) R'G'B' 0..255 tensors, where it is wanted.
        """
        shown, rgb = through_srgb(lab)
        true_shown, true_rgb = through_srgb(true_lab)
        values = {
            "l1": l1_ab(shown, true_shown),
            "psnr_db": psnr_ab(shown, true_shown),
            "psnr_rgb_db": psnr_rgb(rgb, true_rgb),
            "colourfulness": colourfulness(rgb),
            "colourfulness_absolute": colourfulness(rgb, "absolute"),
            "true_colourfulness": colourfulness(true_rgb),
        }
        if perceptual is not None:
            values["l_perc"] = perceptual(rgb, true_rgb)
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.double().sum())
        self.histogram += ab_histogram(shown).cpu()
        self.true_histogram += ab_histogram(true_shown).cpu()
        self.images += lab.shape[0]

    def summary(self) -> dict[str, float]:
        """Means over the images, the colourfulness ratio to the truth, and the ab histogram intersection."""
        if not self.images:
            return {"images": 0}
        means = {name: total / self.images for name, total in self.sums.items()}
        true_colourfulness = means.pop("true_colourfulness")
        means["colourfulness_ratio"] = means["colourfulness"] / true_colourfulness if true_colourfulness else math.nan
        means["ab_intersection"] = histogram_intersection(self.histogram, self.true_histogram)
        return {"images": self.images, **means}
