"""Level colour through a shot: what the same things drift by, in tint and in strength, is taken away again.

The drift is what colours change by along the motion, where it is trusted. What comes into the picture or leaves it
does not count, so that a pan from a red wall to a green garden ends on a green one.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from archivecolor.colorize.warping import STRIDE, Warp, Warps

_MEMORY: Final = 1 - 1 / 500
"""Share of the drift that is remembered from frame to frame, so that its errors do not add up for ever."""
_MOST_TINT: Final = 15.0
_MOST_GAIN: Final = 1.5
_LEAST_TRUST: Final = 0.1


class Leveller:
    """Frames' steady ab in, in order; the same, kept level with the first of its shot."""

    def __init__(self) -> None:
        self._previous: Tensor | None = None
        self._tint = self._gain = torch.zeros(())

    def __call__(self, ab: Tensor, warps: Warps | None) -> Tensor:
        """Level (1, 2, h, w) ``ab``; ``warps`` are the motion from the frame before it, None where a shot begins."""
        if warps is None or self._previous is None:
            self._tint, self._gain = ab.new_zeros(2), ab.new_zeros(())
        elif min(warps.back.mean_trust, warps.ahead.mean_trust) >= _LEAST_TRUST:
            # Moving a picture blurs it. Each of the two is moved once, so that their strengths stay comparable.
            onto = _change(_moved(self._previous, warps.back), _thinned(ab), warps.back)
            back = _change(_thinned(self._previous), _moved(ab, warps.ahead), warps.ahead)
            tint, gain = ((one + other) / 2 for one, other in zip(onto, back, strict=True))
            self._tint, self._gain = _MEMORY * self._tint + tint, _MEMORY * self._gain + gain
        self._previous = ab
        mean = ab.mean(dim=(2, 3), keepdim=True)
        gain = torch.exp(-self._gain).clamp(1 / _MOST_GAIN, _MOST_GAIN)
        return (ab - mean) * gain + mean - self._tint.clamp(-_MOST_TINT, _MOST_TINT).view(1, 2, 1, 1)


def _change(before: Tensor, after: Tensor, warp: Warp) -> tuple[Tensor, Tensor]:
    """By how much the mean, (2,), and the logarithm of the spread, (), of trusted ab grow, both (2, h, w)."""
    weight = warp.coarse_trust[0, 0] / warp.coarse_trust.sum()
    means, spreads = [], []
    for ab in (before, after):
        mean = (ab * weight).sum(dim=(1, 2))
        spread = ((ab - mean.view(2, 1, 1)).square() * weight).sum().sqrt()
        means.append(mean)
        spreads.append(torch.log(spread + 1))  # a picture without colour has no strength to keep
    return means[1] - means[0], spreads[1] - spreads[0]


def _thinned(ab: Tensor) -> Tensor:
    return ab[0, :, ::STRIDE, ::STRIDE]


def _moved(ab: Tensor, warp: Warp) -> Tensor:
    moved: Tensor = F.grid_sample(ab, warp.coarse_grid, padding_mode="border", align_corners=False)[0]
    return moved
