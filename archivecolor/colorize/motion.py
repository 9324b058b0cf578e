"""How the picture moves from frame to frame, found on small luma; and where one shot ends.

Everything here runs on the CPU and needs lightness alone.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]

FLOW_PX = 96
"""Longest side of the luma that optical flow is computed on. A third more takes half as long again, and made the colour
of eleven clips steadier by 5 % in the middle (1 to 12 % on most), of a warping error far below the truth's own."""
SAME_SHOT = 0.3
"""Least `Link.likeness` of neighbours in one shot. Measured: cuts between any two of eleven clips reach 0.24 at most,
neighbours in them, made to flicker by 30 % and very grainy, 0.46 at least, 0.80 as they are."""
EXPLAINED = 0.95
"""Least mean of `Link.trust_back` of a frame that takes its colour from the one before."""

_LEAST_PX = 32
_LEAST_CONTRAST = 1.5  # L*: below it there is nothing but noise to stretch
_LEAST_SCALE, _MOST_SCALE, _SCALE_PER_NOISE = 6.0, 20.0, 6.0  # L*: differences that lower the trust to 0.37
_MOST_NOISE = 8.0  # L*: mean difference that is taken for grain
# Pixels of the search. On water and foliage flow there and flow back disagree by this much where both serve well enough
# for colour: an eighth of it left a surfer's colours a third less steady, and changed clips' true colours, put through
# the same averaging, by 0.05 of ab less at most.
_FLOW_SLACK_PX2, _FLOW_SLACK = 6.4, 0.16
_STILL = 1.08  # a camera's motion that explains less than this is one of the grain
_NOISE_VARIANCE = 4.0  # L* squared: windows with less detail do not count as alike


@dataclass(frozen=True)
class Link:
    """Motion between two frames of one size, the earlier and the later, at the size (h, w) of their `Glimpse.small`.

    Attributes:
        back: (h, w, 2) float32: how far each pixel of the later frame is from where it was in the earlier one; x and y,
            in halves of the picture's width and height.
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

    @property
    def explains(self) -> bool:
        """Whether the earlier frame, moved, explains so much of the later that this needs no colours of its own."""
        return self.in_one_shot and float(self.trust_back.mean()) >= EXPLAINED


@dataclass(frozen=True)
class Glimpse:
    """A frame as the motion search sees it.

    Attributes:
        small: (h, w) uint8, its lightness with a mean of 128 and a standard deviation of 50: film flickers, but motion
            is to be found on pictures of constant exposure.
        deviation: the standard deviation that it had, in L*.
        format: anything that tells frames apart whose ab do not show the same part of the frame at the same size.
    """

    small: npt.NDArray[np.uint8]
    deviation: float
    format: object


def glimpse(L: Plane, frame_format: object = None) -> Glimpse:
    """Take (H, W) lightness 0..100 in for `find_motion`."""
    h, w = (max(_LEAST_PX, min(FLOW_PX, side // 2 * 2)) for side in L.shape)
    small = cv2.resize(L, (w, h), interpolation=cv2.INTER_AREA)
    mean, deviation = float(small.mean()), float(small.std())
    evened_out = (small - mean) * (50 / max(deviation, _LEAST_CONTRAST)) + 128
    return Glimpse(np.clip(evened_out, 0, 255).astype(np.uint8), max(deviation, _LEAST_CONTRAST), frame_format)


def find_motion(earlier: Glimpse, later: Glimpse) -> Link | None:
    """Motion both ways between two frames; None if their formats differ.

    The flow is that of Kroeger et al., *Fast Optical Flow using Dense Inverse Search*, ECCV 2016.
    """
    if earlier.format != later.format:
        return None
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    search.setFinestScale(1)
    search.setVariationalRefinementIterations(3)
    contrast = min(earlier.deviation, later.deviation) / 50
    before, after = earlier.small.astype(np.float32), later.small.astype(np.float32)
    back = _settle(after, before, _flow(search, later.small, earlier.small), contrast)
    ahead = _settle(before, after, _flow(search, earlier.small, later.small), contrast)
    moved = _warp(before, back)
    trust_back = _trust(after - moved, back, ahead, contrast)
    trust_ahead = _trust(before - _warp(after, ahead), ahead, back, contrast)
    likeness = _likeness(after, moved, contrast)
    h, w = after.shape
    to_halves = np.array([2 / w, 2 / h], np.float32)
    return Link(back * to_halves, ahead * to_halves, trust_back, trust_ahead, likeness)


def find_links(before: Glimpse | None, frames: Sequence[Glimpse]) -> list[Link | None]:
    """`find_motion` between each of some frames in a row and the one before it, of which the first has ``before``."""
    pairs = itertools.pairwise([before, *frames])
    return [None if one is None or other is None else find_motion(one, other) for one, other in pairs]


def _flow(search: cv2.DISOpticalFlow, a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> Plane:
    found: Plane = search.calc(a, b, np.zeros((*a.shape, 2), np.float32)).astype(np.float32, copy=False)
    return found


def _settle(a: Plane, b: Plane, flow: Plane, contrast: float) -> Plane:
    """``flow`` where it explains ``a`` by ``b`` clearly better than the camera's motion does, which is used elsewhere.

    Optical flow on grain trembles, and would shake the colour of a still picture.
    """
    camera = camera_motion(flow)
    still, follows_camera = np.abs(a - b), np.abs(a - _warp(b, camera))
    if float(still.mean()) < _STILL * float(follows_camera.mean()):
        camera, follows_camera = np.zeros_like(flow), still
    camera_error = _box(follows_camera, 13) * contrast + 0.02
    error = _box(np.abs(a - _warp(b, flow)), 13) * contrast + 0.02
    noise = _quantile(error[::4, ::4], 0.2)
    own = np.clip((0.9 - error / camera_error) / 0.15, 0, 1) * np.clip((camera_error / noise - 1.2) / 0.3, 0, 1)
    settled: Plane = camera + own[..., None] * (flow - camera)
    return settled


def camera_motion(flow: Plane) -> Plane:
    """The affine motion that most of (h, w, 2) ``flow`` agrees on, by reweighted least squares; (h, w, 2)."""
    terms = _affine_terms(*flow.shape[:2])
    points, seen = terms[4::8, 4::8].reshape(-1, 3), flow[4::8, 4::8].reshape(-1, 2)
    weighted = points
    motion = np.zeros((3, 2), np.float32)
    for _ in range(4):
        cv2.solve(weighted.T @ points, weighted.T @ seen, motion)
        miss2 = _norm2(seen - points @ motion)
        spread2 = max(2.25 * _quantile(miss2, 0.5), 4e-4)
        weighted = points / np.square(1 + miss2 / spread2)[:, None]
    fitted: Plane = terms @ motion
    return fitted


@functools.lru_cache(maxsize=4)
def _affine_terms(h: int, w: int) -> Plane:
    """1, x and y, the latter from -0.5 to 0.5, of every pixel; (h, w, 3)."""
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([np.ones_like(x), x / w - 0.5, y / h - 0.5], axis=-1).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _centres(h: int, w: int) -> Plane:
    """Column and row of every pixel; (h, w, 2)."""
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([x, y], axis=-1).astype(np.float32)


def _quantile(values: Plane, share: float) -> float:
    """The value that ``share`` of them are not above; numpy's own interpolate, and take ten times as long."""
    number = int(share * values.size)
    return float(np.partition(values, number, axis=None)[number])


def _norm2(vectors: Plane) -> Plane:
    """Squared length of (..., 2); faster than a sum over an axis of two."""
    return np.square(vectors[..., 0]) + np.square(vectors[..., 1])


def _trust(difference: Plane, flow: Plane, opposite: Plane, contrast: float) -> Plane:
    """0..1 from the photometric and the forward-backward check; 0 where the flow leaves the picture."""
    miss = _box(np.abs(difference), 3) * contrast
    noise = _quantile(miss[::2, ::2], 0.5)
    scale = min(max(_LEAST_SCALE, _SCALE_PER_NOISE * noise), _MOST_SCALE)
    miss = np.maximum(miss - min(noise, _MOST_NOISE), 0)
    returned = _warp(opposite, flow)
    strayed, length = _norm2(returned + flow), _norm2(returned) + _norm2(flow)
    trust: Plane = np.exp(-np.square(miss / scale) - strayed / (_FLOW_SLACK * length + _FLOW_SLACK_PX2))
    h, w = flow.shape[:2]
    places = flow + _centres(h, w)
    trust[cv2.inRange(places, (-0.5, -0.5), (w - 0.5, h - 0.5)) == 0] = 0
    return trust


def _likeness(a: Plane, b: Plane, contrast: float) -> float:
    """Mean correlation of two pictures in 7x7 windows, weighted by their detail; 1 where neither shows any."""
    mean_a, mean_b = _box(a, 7), _box(b, 7)
    var_a, var_b = _box(a * a, 7) - mean_a * mean_a, _box(b * b, 7) - mean_b * mean_b
    covariance = _box(a * b, 7) - mean_a * mean_b
    noise = _NOISE_VARIANCE / contrast**2
    detail = np.sqrt(np.maximum(np.maximum(var_a, var_b), 0))
    if float(detail.mean()) * contrast < 0.2:
        return 1.0
    correlation = covariance / np.sqrt((np.maximum(var_a, 0) + noise) * (np.maximum(var_b, 0) + noise))
    return float((correlation * detail).sum() / detail.sum())


def _warp(picture: Plane, flow: Plane) -> Plane:
    """``picture`` (h, w) or (h, w, 2) at each pixel's place plus ``flow``, in pixels."""
    x, y = cv2.split(flow + _centres(*flow.shape[:2]))
    warped = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped.astype(np.float32, copy=False)


def _box(picture: Plane, side_px: int) -> Plane:
    averaged = cv2.boxFilter(picture, -1, (side_px, side_px), borderType=cv2.BORDER_REFLECT)
    return averaged.astype(np.float32, copy=False)
