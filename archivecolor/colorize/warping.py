"""Motion as it moves colour: links brought to the size of the ab, on the device that the ab are on."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from archivecolor.colorize.motion import SAME_SHOT, Link, Plane
from archivecolor.colorize.transfer import upload_floats

STRIDE: Final = 4
"""Every so many-th pixel is enough for a mean over the picture."""


@dataclass(frozen=True)
class Warp:
    """How one of two frames is moved to be like the other.

    Attributes:
        grid: (1, h, w, 2): where in the one each pixel of the other is; x and y, -1 to 1 from edge to edge, as
            `torch.nn.functional.grid_sample` takes them.
        trust: (1, 1, h, w), 0..1: how well the one, moved, explains the other.
        coarse_grid, coarse_trust: every `STRIDE`-th pixel of them.
        mean_trust: over the picture.
    """

    grid: Tensor
    trust: Tensor
    coarse_grid: Tensor
    coarse_trust: Tensor
    mean_trust: float


@dataclass(frozen=True)
class Warps:
    """A link's both ways: ``back`` moves the earlier frame onto the later one, ``ahead`` the later onto the earlier."""

    back: Warp
    ahead: Warp
    likeness: float

    @property
    def in_one_shot(self) -> bool:
        """Whether the two frames belong to one shot."""
        return self.likeness >= SAME_SHOT


@torch.inference_mode()
def warps_of(links: Sequence[Link | None], size: tuple[int, int], device: torch.device) -> list[Warps | None]:
    """The links, where there are any, for ab of ``size``, height and width, on ``device``."""
    known = [link for link in links if link is not None]
    if not known:
        return [None] * len(links)
    flows = [flow for link in known for flow in (link.back, link.ahead)]
    trusts = [trust for link in known for trust in (link.trust_back, link.trust_ahead)]
    enlarge = _one_by_one if device.type == "cpu" else all_at_once
    grid, trust = enlarge(flows, trusts, size, device)
    parts = (grid, trust, grid[:, ::STRIDE, ::STRIDE], trust[..., ::STRIDE, ::STRIDE])
    means = [float(plane.mean()) for plane in trusts]
    ways = map(Warp, *(torch.split(part, 1) for part in parts), means)
    return list(_paired(links, ways))


def _paired(links: Sequence[Link | None], ways: Iterator[Warp]) -> Iterator[Warps | None]:
    for link in links:
        yield None if link is None else Warps(next(ways), next(ways), link.likeness)


def _one_by_one(
    flows: Sequence[Plane], trusts: Sequence[Plane], size: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """`all_at_once` on a CPU, where OpenCV takes a third of torch's time."""
    grid, trust = np.empty((len(flows), *size, 2), np.float32), np.empty((len(trusts), 1, *size), np.float32)
    coordinates, size_wh = _edge_coordinates(size), size[::-1]
    for flow, to_grid, plane, to_trust in zip(flows, grid, trusts, trust, strict=True):
        cv2.resize(flow, size_wh, dst=to_grid, interpolation=cv2.INTER_LINEAR)
        to_grid += coordinates
        cv2.resize(plane, size_wh, dst=to_trust[0], interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(grid), torch.from_numpy(trust)


def all_at_once(
    flows: Sequence[Plane], trusts: Sequence[Plane], size: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """(N, h, w, 2) sampling grids and (N, 1, h, w) trust at ``size``, of N (h, w, 2) flows as `Link` has them."""
    planes = [plane for flow, trust in zip(flows, trusts, strict=True) for plane in (flow[..., 0], flow[..., 1], trust)]
    small = upload_floats(planes, device).view(len(flows), 3, *trusts[0].shape)
    large = F.interpolate(small, size=size, mode="bilinear", align_corners=False)
    return large[:, :2].permute(0, 2, 3, 1) + _coordinates_on(device, size), large[:, 2:]


@functools.lru_cache(maxsize=4)
def _edge_coordinates(size: tuple[int, int]) -> Plane:
    """-1 to 1 from edge to edge, at each pixel's centre; x and y, (h, w, 2)."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    return np.stack([(x * 2 + 1) / size[1] - 1, (y * 2 + 1) / size[0] - 1], axis=-1).astype(np.float32, copy=False)


@functools.lru_cache(maxsize=4)
def _coordinates_on(device: torch.device, size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(_edge_coordinates(size)).to(device)
