"""How the picture moves from frame to frame, found on small luma in worker threads; and where one shot ends.

Everything here runs on the CPU and needs luma alone, so that it can go on while the network is at work.
"""

from __future__ import annotations

import functools
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from archivecolor.colorize.mattes import Rectangle

Plane = npt.NDArray[np.float32]

FLOW_PX = 128
"""Longest side of the luma that optical flow is computed on. At twice this size the flow search takes no less coarse
a look, since its finest level is set relative to it: the same flow was found, for more time."""
SAME_SHOT = 0.28
"""Least `Link.likeness` of neighbours in one shot. Measured: cuts between any two of eleven clips reach 0.24 at most,
neighbours in them, made to flicker by 30 % and grainy, 0.34 at least."""

_LEAST_CONTRAST = 4.0  # code values: below it there is nothing but noise to stretch
_LEAST_SCALE, _MOST_SCALE, _SCALE_PER_NOISE = 15.0, 50.0, 6.0  # code values of difference that halve the trust, about
_FLOW_SLACK_PX2, _FLOW_SLACK = 0.5, 0.02
_LIKENESS_NOISE = 26.0


@dataclass(frozen=True)
class Link:
    """Motion between two frames of one size, the earlier and the later, at the size (h, w) of their ab.

    Attributes:
        back: (h, w, 2) float32: where in the earlier frame each pixel of the later one was; x and y, -1 to 1 from edge
            to edge, as `torch.nn.functional.grid_sample` takes them.
        ahead: the same from the earlier frame to the later.
        trust_back: (h, w) float32, 0..1: how well the earlier frame, moved, explains the later.
        trust_ahead: how well the later frame explains the earlier.
        likeness: local correlation of the later frame and the earlier one, moved; 1 at most, blind to exposure.
    """

    back: Plane
    ahead: Plane
    trust_back: Plane
    trust_ahead: Plane
    likeness: float

    @property
    def in_one_shot(self) -> bool:
        """Whether the two frames belong to one shot."""
        return self.likeness >= SAME_SHOT


@dataclass(frozen=True)
class Glimpse:
    """A frame as the motion search sees it: its ``picture``, small and evened out; ``size`` is that of its ab."""

    picture: Rectangle | None
    size: tuple[int, int]
    small: Future[tuple[npt.NDArray[np.uint8], float]]


@dataclass
class MotionFinder:
    """Looks at frames and links them, in ``workers`` threads; close it, or use it in a ``with`` block."""

    workers: int = 2
    _pool: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="motion")

    def look(self, luma: npt.NDArray[Any], size: tuple[int, int], picture: Rectangle | None = None) -> Glimpse:
        """Take in one frame's (H, W) luma code values, any integer type, and the part of it that is picture.

        ``size`` is the height and width of the ab that the motion will be used on.
        """
        return Glimpse(picture, size, self._pool.submit(_even_out, luma, picture))

    def link(self, earlier: Glimpse, later: Glimpse) -> Future[Link] | None:
        """Find the motion between two frames that were looked at before; None if they are not of one format."""
        if (earlier.picture, earlier.size) != (later.picture, later.size):
            return None
        # Glimpses are submitted before their link, and the pool works in order: waiting in there cannot lock it up.
        return self._pool.submit(lambda: find_motion(*earlier.small.result(), *later.small.result(), later.size))

    def close(self) -> None:
        """Drop what has not begun and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> MotionFinder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _even_out(luma: npt.NDArray[Any], picture: Rectangle | None) -> tuple[npt.NDArray[np.uint8], float]:
    """Luma at the flow's size with mean 128 and deviation 50, and the deviation it had, both in 8-bit code values.

    Film flickers; flow and comparisons see a picture of constant exposure.
    """
    if picture is not None:
        luma = luma[picture.top : picture.bottom, picture.left : picture.right]
    size = flow_size(*luma.shape)
    small = _shrink(luma, *size).astype(np.float32)
    if luma.dtype != np.uint8:
        small *= 255 / max(float(np.iinfo(luma.dtype).max), 1)
    mean, deviation = float(small.mean()), max(float(small.std()), _LEAST_CONTRAST)
    return np.clip((small - mean) * (50 / deviation) + 128, 0, 255).astype(np.uint8), deviation


def _shrink(luma: npt.NDArray[Any], height_px: int, width_px: int) -> npt.NDArray[Any]:
    """By area; first by a whole number, which OpenCV does several times faster than by a fraction."""
    h, w = luma.shape
    step_y, step_x = max(1, h // (2 * height_px)), max(1, w // (2 * width_px))
    if step_y * step_x > 1:
        whole = luma[: h // step_y * step_y, : w // step_x * step_x]
        luma = cv2.resize(whole, (w // step_x, h // step_y), interpolation=cv2.INTER_AREA)
    return cv2.resize(luma, (width_px, height_px), interpolation=cv2.INTER_AREA)


def flow_size(height_px: int, width_px: int) -> tuple[int, int]:
    """Height and width that flow is computed at: even, `FLOW_PX` at most, never more than the picture's by much."""
    return tuple(max(32, min(FLOW_PX, side // 2 * 2)) for side in (height_px, width_px))  # type: ignore[return-value]


def find_motion(
    earlier: npt.NDArray[np.uint8],
    earlier_deviation: float,
    later: npt.NDArray[np.uint8],
    later_deviation: float,
    size: tuple[int, int],
) -> Link:
    """Motion both ways between two evened-out frames, (h, w) uint8, whose deviations had been as given.

    What is found on the small frames is brought to ``size``, height and width.
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    search.setFinestScale(1)
    search.setVariationalRefinementIterations(3)
    contrast = min(earlier_deviation, later_deviation) / 50
    before, after = earlier.astype(np.float32), later.astype(np.float32)
    back = _settle(after, before, search.calc(later, earlier, None), contrast)
    ahead = _settle(before, after, search.calc(earlier, later, None), contrast)
    moved = _warp(before, back)
    trust_back = _trust(after - moved, back, ahead, contrast)
    trust_ahead = _trust(before - _warp(after, ahead), ahead, back, contrast)
    likeness = _likeness(after, moved, contrast)
    return Link(_grid(back, size), _grid(ahead, size), _resize(trust_back, size), _resize(trust_ahead, size), likeness)


def _grid(flow: Plane, size: tuple[int, int]) -> Plane:
    """Flow in pixels of its own size to `Link.back`'s coordinates at ``size``."""
    h, w = size
    grid = _resize(flow * np.array([2 / flow.shape[1], 2 / flow.shape[0]], np.float32), size)
    grid[..., 0] += (np.arange(w, dtype=np.float32) * 2 + 1) / w - 1
    grid[..., 1] += ((np.arange(h, dtype=np.float32) * 2 + 1) / h - 1)[:, None]
    return grid


def _resize(plane: Plane, size: tuple[int, int]) -> Plane:
    resized: Plane = cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return resized


def _settle(a: Plane, b: Plane, flow: Plane, contrast: float) -> Plane:
    """``flow`` where it explains ``a`` by ``b`` clearly better than the camera's motion does, which is used elsewhere.

    Optical flow on grain trembles, and would shake the colour of a still picture.
    """
    camera = camera_motion(flow)
    error, camera_error = (_box(np.abs(a - _warp(b, f)), 13) * contrast + 0.05 for f in (flow, camera))
    own = np.clip((0.9 - error / camera_error) / 0.15, 0, 1)[..., None]
    settled: Plane = camera + own * (flow - camera)
    return settled


def camera_motion(flow: Plane) -> Plane:
    """The affine motion that most of (h, w, 2) ``flow`` agrees on, by reweighted least squares; (h, w, 2)."""
    terms = _affine_terms(*flow.shape[:2])
    points, seen = terms[4::8, 4::8].reshape(-1, 3), flow[4::8, 4::8].reshape(-1, 2)
    weighted = points
    motion = np.zeros((3, 2), np.float32)
    for _ in range(4):
        motion = np.linalg.solve(weighted.T @ points, weighted.T @ seen)
        miss2 = _norm2(seen - points @ motion)
        spread2 = max(2.25 * float(np.median(miss2)), 4e-4)
        weighted = points / np.square(1 + miss2 / spread2)[:, None]
    fitted: Plane = terms @ motion
    return fitted


@functools.lru_cache(maxsize=4)
def _affine_terms(h: int, w: int) -> Plane:
    """1, x and y, the latter from -0.5 to 0.5, of every pixel; (h, w, 3)."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    return np.stack([np.ones_like(x), x / w - 0.5, y / h - 0.5], axis=-1)


def _norm2(vectors: Plane) -> Plane:
    """Squared length of (..., 2); faster than a sum over an axis of two."""
    return np.square(vectors[..., 0]) + np.square(vectors[..., 1])


def _trust(difference: Plane, flow: Plane, opposite: Plane, contrast: float) -> Plane:
    """0..1 from the photometric and the forward-backward check; 0 where the flow leaves the picture."""
    miss = _box(np.abs(difference), 3) * contrast
    scale = min(max(_LEAST_SCALE, _SCALE_PER_NOISE * float(np.median(miss[::2, ::2]))), _MOST_SCALE)
    returned = _warp(opposite, flow)
    strayed, length = _norm2(returned + flow), _norm2(returned) + _norm2(flow)
    trust: Plane = np.exp(-np.square(miss / scale) - strayed / (_FLOW_SLACK * length + _FLOW_SLACK_PX2))
    x, y = _places(flow)
    trust[(x < -0.5) | (x > flow.shape[1] - 0.5) | (y < -0.5) | (y > flow.shape[0] - 0.5)] = 0
    return trust


def _likeness(a: Plane, b: Plane, contrast: float) -> float:
    """Mean correlation of two pictures in 7x7 windows, weighted by their detail; 1 where neither shows any."""
    mean_a, mean_b = _box(a, 7), _box(b, 7)
    var_a, var_b = _box(a * a, 7) - mean_a * mean_a, _box(b * b, 7) - mean_b * mean_b
    covariance = _box(a * b, 7) - mean_a * mean_b
    noise = _LIKENESS_NOISE / contrast**2
    detail = np.sqrt(np.maximum(np.maximum(var_a, var_b), 0))
    if float(detail.mean()) * contrast < 0.5:
        return 1.0
    correlation = covariance / np.sqrt((np.maximum(var_a, 0) + noise) * (np.maximum(var_b, 0) + noise))
    return float((correlation * detail).sum() / detail.sum())


def _places(flow: Plane) -> tuple[Plane, Plane]:
    h, w = flow.shape[:2]
    return flow[..., 0] + np.arange(w, dtype=np.float32), flow[..., 1] + np.arange(h, dtype=np.float32)[:, None]


def _warp(picture: Plane, flow: Plane) -> Plane:
    """``picture`` (h, w) or (h, w, 2) at each pixel's place plus ``flow``, in pixels."""
    warped: Plane = cv2.remap(picture, *_places(flow), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped


def _box(picture: Plane, side_px: int) -> Plane:
    averaged: Plane = cv2.boxFilter(picture, -1, (side_px, side_px), borderType=cv2.BORDER_REFLECT)
    return averaged
