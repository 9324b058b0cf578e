"""Measures of how steady colour is over time (DESIGN section 9). A grey film is perfectly steady: read them beside
colourfulness, and beside the truth's own."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from archivecolor import color
from archivecolor.evaluation.metrics import colourfulness

CDC_DISTANCES: Final = (1, 2, 4)
"""Frames between those whose colour distributions CDC compares."""


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """(C, H, W) sampled bilinearly at each pixel's place plus ``flow``, (2, H, W): x and y in pixels."""
    h, w = flow.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h, device=flow.device), torch.arange(w, device=flow.device), indexing="ij")
    places = torch.stack([(2 * (x + flow[0]) + 1) / w - 1, (2 * (y + flow[1]) + 1) / h - 1], dim=-1)
    sampled: Tensor = F.grid_sample(picture[None], places[None], padding_mode="border", align_corners=False)[0]
    return sampled


def visible(flow: Tensor, back: Tensor) -> Tensor:
    """Where the flow from one frame to the next can be believed; (H, W) bool.

    Left out are places that the flow carries out of the picture, those hidden in the next frame (forward and backward
    flow disagree: |w + f|^2 > 0.01 (|w|^2 + |f|^2) + 0.5, w being ``back`` moved along), and the borders of motion
    (|grad f|^2 > 0.01 |f|^2 + 0.002). Ruder et al., *Artistic Style Transfer for Videos*, 2016; Lai et al., 2018.

    Args:
        flow, back: (2, H, W), from the first frame to the second and from the second to the first, in pixels.
    """
    h, w = flow.shape[-2:]
    returned, length = warp(back, flow), flow.square().sum(0)
    agrees = (returned + flow).square().sum(0) <= 0.01 * (returned.square().sum(0) + length) + 0.5
    slope = sum(gradient.square().sum(0) for gradient in torch.gradient(flow, dim=(1, 2)))
    x = torch.arange(w, device=flow.device) + flow[0]
    y = torch.arange(h, device=flow.device)[:, None] + flow[1]
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    return agrees & (slope <= 0.01 * length + 0.002) & inside


def warping_error(picture: Tensor, following: Tensor, flow: Tensor, mask: Tensor) -> float:
    """Mean square over the pixels of ``mask`` and the channels of what ``following``, moved back, differs by.

    Lai et al., *Learning Blind Video Temporal Consistency*, ECCV 2018. NaN where nothing is visible.

    Args:
        picture, following: (C, H, W), a frame and the next one.
        flow, mask: (2, H, W) from the first to the second, and `visible` of it.
    """
    difference = (warp(following, flow) - picture).square().mean(0)
    return float(difference[mask].mean()) if bool(mask.any()) else math.nan


def colour_distribution(rgb: Tensor) -> Tensor:
    """Shares of each channel's 256 values in a (3, H, W) R'G'B' 0..255 picture; (3, 256) float64."""
    values = rgb.round().clamp(0, 255).long().flatten(1)
    counts = torch.stack([torch.bincount(channel, minlength=256) for channel in values]).double()
    return counts / values.shape[1]


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    """Jensen-Shannon divergence of two (C, bins) sets of distributions, mean over C; 0 to ln 2."""
    middle = (p + q) / 2
    divergence = (torch.xlogy(p, p / middle).nansum(-1) + torch.xlogy(q, q / middle).nansum(-1)) / 2
    return float(divergence.mean())


@dataclass(frozen=True)
class Step:
    """What leads from a frame to the next one, found on the true or the grey film.

    ``flow`` is (2, H, W) in pixels, ``mask`` `visible` of it.
    """

    flow: Tensor
    mask: Tensor


@dataclass
class ClipScores:
    """Measures of one rendering of a clip, taken in frame by frame.

    ``warping_ab`` (a and b, Lab units squared), ``warping_rgb`` (R'G'B' 0..1) and ``colourfulness`` have an entry a
    frame; a frame's warping errors are NaN where no frame of its shot precedes it.
    """

    warping_ab: list[float] = field(default_factory=list)
    warping_rgb: list[float] = field(default_factory=list)
    colourfulness: list[float] = field(default_factory=list)
    colourfulness_absolute: list[float] = field(default_factory=list)
    l1: list[float] = field(default_factory=list)
    _divergences: dict[int, list[float]] = field(default_factory=lambda: {t: [] for t in CDC_DISTANCES})
    _shot: deque[Tensor] = field(default_factory=lambda: deque(maxlen=max(CDC_DISTANCES)))
    _previous: tuple[Tensor, Tensor] | None = None

    def update(self, rgb: Tensor, step: Step | None, true_ab: Tensor | None = None) -> Tensor:
        """Take in the next frame; gives its (2, H, W) a and b.

        Args:
            rgb: (3, H, W) R'G'B' 0..255.
            step: what led to it from the frame before; None for the first frame of a shot.
            true_ab: (2, H, W), for L1.
        """
        ab = color.rgb_to_lab(rgb / 255)[1:]
        if step is None:
            self._shot.clear()
            self._previous = None
        if step is not None and self._previous is not None:
            previous_rgb, previous_ab = self._previous
            self.warping_ab.append(warping_error(previous_ab, ab, step.flow, step.mask))
            self.warping_rgb.append(warping_error(previous_rgb / 255, rgb / 255, step.flow, step.mask))
        else:
            self.warping_ab.append(math.nan)
            self.warping_rgb.append(math.nan)
        distribution = colour_distribution(rgb)
        for distance in CDC_DISTANCES:
            if distance <= len(self._shot):
                self._divergences[distance].append(jensen_shannon(self._shot[-distance], distribution))
        self.colourfulness.append(float(colourfulness(rgb[None])))
        self.colourfulness_absolute.append(float(colourfulness(rgb[None], "absolute")))
        if true_ab is not None:
            self.l1.append(float((ab - true_ab).abs().mean()))
        self._shot.append(distribution)
        self._previous = rgb, ab
        return ab

    def summary(self) -> dict[str, float | None]:
        """Means over the clip by name; None where there was nothing to measure.

        ``cdc`` is the colour distribution consistency index of Liu et al., *Temporally Consistent Video Colorization
        with Deep Feature Propagation and Self-Regularization Learning* (TCVC), 2021: the mean over frame distances 1,
        2 and 4 of the mean divergence of the histograms of R', G' and B'.
        """
        at_distance = [_mean(values) for values in self._divergences.values()]
        known = [value for value in at_distance if value is not None]
        return {
            "warping_error_ab": _mean(self.warping_ab),
            "warping_error_rgb": _mean(self.warping_rgb),
            "cdc": sum(known) / len(known) if len(known) == len(at_distance) else None,
            "colourfulness": _mean(self.colourfulness),
            "colourfulness_absolute": _mean(self.colourfulness_absolute),
            "l1": _mean(self.l1),
        }


def _mean(values: list[float]) -> float | None:
    """Of those that are numbers."""
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else None
