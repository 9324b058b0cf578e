"""Steady colour: each frame's ab averaged with its neighbours' in the shot, carried along the motion.

Forward through a shot, a frame's sum is its own ab and, weighted by strength and trust, its predecessor's sum moved to
where the picture has moved; backward the same. Both sums less the frame's own, divided by the weights that went in,
are its steady ab: an average over neighbours that dies off exponentially on either side, so that it can neither drift
nor fade, whatever the shot's length, and that leaves out what the motion does not explain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from archivecolor.colorize.levelling import Leveller
from archivecolor.colorize.motion import Glimpse, find_motion
from archivecolor.colorize.warping import STRIDE, Warp, Warps, warps_of

BLOCK: Final = 24
"""Frames of a shot that are finished at a time, counted from its beginning."""
LOOK_AHEAD: Final = 12
"""Frames after a block that are taken into account for it."""
LONGEST_FLASH: Final = 2
"""So many frames that look like nothing around them do not end a shot: a flash, a splice, a damaged frame."""
_MOST_GAIN: Final = 1.5
_CARRIED_WEIGHT: Final = 0.01
"""Of the colours that a frame without any of its own takes from the one before: where motion is trusted they are in the
sums already, and where it is not they are better than none."""


@dataclass(frozen=True)
class _Sums:
    """Weighted sums over frames, and the sum of the weights behind each.

    Attributes:
        ab: (1, 3, h, w) a, b, and the weight.
        energy: (1, 2, h / 4, w / 4) a^2 + b^2 of every fourth pixel, and the weight.
        colourfulness: (2,) of whole frames, and the weight.
    """

    ab: Tensor
    energy: Tensor
    colourfulness: Tensor

    @classmethod
    def of(cls, ab: Tensor) -> list[_Sums]:
        """Each frame's own, of (N, 2, h, w)."""
        energy = _energy(ab)
        colourfulness = _colourfulness(ab)
        own = (
            torch.split(torch.cat([ab, torch.ones_like(ab[:, :1])], dim=1), 1),
            torch.split(torch.cat([energy, torch.ones_like(energy)], dim=1), 1),
            torch.stack([colourfulness, torch.ones_like(colourfulness)], dim=1).unbind(),
        )
        return [cls(*sums) for sums in zip(*own, strict=True)]

    def weakened(self, weight: float) -> _Sums:
        """The same colours with less weight."""
        return _Sums(self.ab * weight, self.energy * weight, self.colourfulness * weight)

    @staticmethod
    def average(frames: Sequence[_Sums]) -> Tensor:
        """(N, 2, h, w) ab of N frames.

        Averaging colours that flicker greys them. One gain for the whole picture gives it back the colourfulness that
        the frames had; that is an average over time as well, and does not flicker either. Where the picture changes,
        as in a pan, those were other pictures: no more is given back than what the energy lost along the motion allows.
        """
        sums, energy = _joined([one.ab for one in frames]), _joined([one.energy for one in frames])
        colourfulness, weight = torch.stack([one.colourfulness for one in frames], dim=1)
        ab = sums[:, :2] / sums[:, 2:]
        gain = (colourfulness / weight + 0.1) / (_colourfulness(ab) + 0.1)
        mean = ab[..., ::STRIDE, ::STRIDE].mean(dim=(2, 3)).square().sum(dim=1)
        energies = (energy[:, 0] / energy[:, 1]).mean(dim=(1, 2)), _energy(ab).mean(dim=(1, 2, 3))
        had, has = ((energy - mean).clamp_min(0).add(1).sqrt() + 0.3 * mean.sqrt() for energy in energies)
        most = (had / has).clamp_max(_MOST_GAIN)
        return ab.mul_(torch.minimum(gain, most).clamp_min(1).view(-1, 1, 1, 1))

    def onto(self, several: Sequence[_Sums], warp: Warp, strength: float) -> list[_Sums]:
        """Each of ``several`` frames plus its share of these sums, moved by ``warp`` and weakened by its trust."""
        ab, energy = _sampled(self.ab, warp.grid), _sampled(self.energy, warp.coarse_grid)
        share = warp.mean_trust * strength
        return [
            _Sums(
                torch.addcmul(own.ab, ab, warp.trust, value=strength),
                torch.addcmul(own.energy, energy, warp.coarse_trust, value=strength),
                torch.add(own.colourfulness, self.colourfulness, alpha=share),
            )
            for own in several
        ]


@dataclass
class _Frame:
    """A frame on its way, its own sums, and those of it and the frames before it.

    ``from_previous`` is the motion since the frame before it, None where a shot begins; ``from_next`` moves the frame
    after it to it. A frame that is ``alone`` takes no part in the averages.
    """

    glimpse: Glimpse
    from_previous: Warps | None
    ab: Tensor
    own: _Sums
    forward: _Sums
    from_next: Warp | None = None
    alone: bool = False
    steady: Tensor | None = None


class Steadier:
    """ab of one film's frames in, in presentation order; the same frames' steady ab out, some frames later.

    `push` frames, and `flush` at the end. What comes out depends on the frames of a shot alone, not on how they were
    batched.

    Args:
        strength: how much of its neighbour's sum a frame takes on where motion is certain, 0 to below 1. The average
            reaches over about 1 / (1 - strength) frames on either side.
        level: whether to keep the colour level through each shot as well (`levelling`).

    Attributes:
        shots: how many have begun.
        shot_starts: the numbers of the frames that begin a shot, for the caller to take out; known of every frame that
            has come out.
    """

    def __init__(self, strength: float, *, level: bool = False) -> None:
        self.strength = strength
        self._leveller = Leveller() if level else None
        self.shots = 0
        self.shot_starts: deque[int] = deque()
        self._done = 0
        self._shot: list[_Frame] = []
        self._last: _Frame | None = None
        self._last_ab: Tensor | None = None
        self._doubtful: list[_Frame] = []
        self._finished: list[Tensor] = []

    @torch.inference_mode()
    def push(
        self,
        ab: Tensor,
        glimpses: Sequence[Glimpse],
        warps: Sequence[Warps | None],
        carried: Sequence[bool] | None = None,
    ) -> list[Tensor]:
        """Take the next frames.

        Args:
            ab: (N, 2, h, w) float32 on any device.
            glimpses: the same frames, as the motion search sees them.
            warps: the motion between each of them and the frame before it; None for the first.
            carried: for each of them, whether its ab says nothing, and its colours are those of its neighbours; it has
                to have a frame before it. None for none of them.

        Returns:
            Steady ab, (2, h, w) each, of those of the oldest frames whose turn it is.
        """
        carried = carried or [False] * len(glimpses)
        if any(carried):
            ab = torch.cat([*self._carry(ab, warps, carried)])
        self._last_ab = ab[-1:]
        sums = (own for some in torch.split(ab, _at_once(ab.device)) for own in _Sums.of(some))
        for frame, own, glimpse, motion, is_carried in zip(
            torch.split(ab, 1), sums, glimpses, warps, carried, strict=True
        ):
            little = own.weakened(_CARRIED_WEIGHT) if is_carried else own
            self._add(_Frame(glimpse, motion, frame, little, little))
        return self._take()

    def _carry(self, ab: Tensor, warps: Sequence[Warps | None], carried: Sequence[bool]) -> Iterator[Tensor]:
        """(1, 2, h, w) of each frame, those that are carried from the one before."""
        last = self._last_ab
        for frame, motion, is_carried in zip(torch.split(ab, 1), warps, carried, strict=True):
            if is_carried:
                assert motion is not None and last is not None
                last = _sampled(last, motion.back.grid)
            else:
                last = frame
            yield last

    @torch.inference_mode()
    def flush(self) -> list[Tensor]:
        """The film is over: the steady ab of all frames that are left."""
        while self._doubtful:
            self._cut()
        self._finish_shot()
        return self._take()

    def _take(self) -> list[Tensor]:
        finished, self._finished = self._finished, []
        return finished

    def _add(self, frame: _Frame) -> None:
        """Find the frame's place: next in the shot, end of a flash, or perhaps the first of another shot."""
        if self._last is None:
            self._join(frame, None)
            return
        warps = frame.from_previous
        if self._doubtful:
            link = find_motion(self._last.glimpse, frame.glimpse)
            [warps] = warps_of([link], (frame.ab.shape[-2], frame.ab.shape[-1]), frame.ab.device)
        if warps is not None and warps.in_one_shot:
            for flash in self._doubtful:
                flash.alone = True
            self._shot += self._doubtful
            self._doubtful = []
            self._join(frame, warps)
            return
        self._doubtful.append(frame)
        if len(self._doubtful) > LONGEST_FLASH:
            self._cut()

    def _cut(self) -> None:
        """What was doubtful is another shot."""
        self._finish_shot()
        doubtful, self._doubtful = self._doubtful, []
        for frame in doubtful:
            self._add(frame)

    def _join(self, frame: _Frame, warps: Warps | None) -> None:
        frame.from_previous = warps
        if warps is None or self._last is None:
            self.shots += 1
            self.shot_starts.append(self._done)
        else:
            self._last.from_next = warps.ahead
            [frame.forward] = self._last.forward.onto([frame.own], warps.back, self.strength)
        self._last = frame
        self._shot.append(frame)
        if len(self._shot) >= BLOCK + LOOK_AHEAD:
            self._finish(BLOCK)

    def _finish_shot(self) -> None:
        self._finish(len(self._shot))
        self._last = None

    def _finish(self, count: int) -> None:
        """Steady ab of the first ``count`` frames of the shot."""
        chain = [(place, frame) for place, frame in enumerate(self._shot) if not frame.alone]
        backward: _Sums | None = None
        sought: list[tuple[_Frame, _Sums]] = []
        for number, frame in reversed(chain):
            finishes = number < count
            if backward is None or frame.from_next is None:
                sums = [frame.own, frame.forward]
            else:
                several = [frame.own, frame.forward] if finishes else [frame.own]
                sums = backward.onto(several, frame.from_next, self.strength)
            backward = sums[0]
            if finishes:
                sought.append((frame, sums[1]))
            if sought and (len(sought) == _at_once(frame.ab.device) or number == chain[0][0]):
                averages = _Sums.average([both_ways for _, both_ways in sought])
                for (frame_of_sums, _), steady in zip(sought, torch.split(averages, 1), strict=True):
                    frame_of_sums.steady = steady
                sought.clear()
        finished, self._shot = self._shot[:count], self._shot[count:]
        for frame in finished:
            steady = frame.ab if frame.alone or frame.steady is None else frame.steady
            if self._leveller and not frame.alone:
                steady = self._leveller(steady, frame.from_previous)
            self._finished.append(steady[0])
            self._done += 1


def _at_once(device: torch.device) -> int:
    """Frames to compute with at a time: one, which a CPU's cache holds, or enough to be worth a GPU's starting."""
    return 1 if device.type == "cpu" else BLOCK


def _sampled(planes: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(planes, grid, padding_mode="border", align_corners=False)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _energy(ab: Tensor) -> Tensor:
    """(N, 1, h / 4, w / 4) a^2 + b^2 of every fourth pixel of (N, 2, h, w)."""
    return ab[..., ::STRIDE, ::STRIDE].square().sum(dim=1, keepdim=True)


def _colourfulness(ab: Tensor) -> Tensor:
    """(N,): Hasler and Süsstrunk's measure (2003) on a sample of (N, 2, h, w) ab, spread plus 0.3 times mean."""
    variance, mean = torch.var_mean(ab[..., ::STRIDE, ::STRIDE], dim=(2, 3), correction=0)
    return variance.sum(dim=1).sqrt() + 0.3 * mean.square().sum(dim=1).sqrt()
