"""Steady colour: each frame's ab averaged with its neighbours' in the shot, carried along the motion.

Forward through a shot, a frame's sum is its own ab and, weighted by strength and trust, its predecessor's sum moved to
where the picture has moved; backward the same. Both sums less the frame's own, divided by the weights that went in,
are its steady ab: an average over neighbours that dies off exponentially on either side, so that it can neither drift
nor fade, whatever the shot's length, and that leaves out what the motion does not explain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from archivecolor.colorize.levelling import Leveller
from archivecolor.colorize.motion import Glimpse, Link, Plane, find_motion

BLOCK: Final = 16
"""Frames of a shot that are finished at a time, counted from its beginning."""
LOOK_AHEAD: Final = 8
"""Frames after a block that are taken into account for it."""
LONGEST_FLASH: Final = 2
"""So many frames that look like nothing around them do not end a shot: a flash, a splice, a damaged frame."""
_MOST_GAIN: Final = 1.5
_STRIDE: Final = 4  # every so many-th pixel is enough for a mean over the picture


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
    def of(cls, ab: Tensor) -> _Sums:
        """A frame's own, of (1, 2, h, w)."""
        energy = _energy(ab)
        colourfulness = _colourfulness(ab)
        return cls(
            torch.cat([ab, torch.ones_like(ab[:, :1])], dim=1),
            torch.cat([energy, torch.ones_like(energy)], dim=1),
            torch.stack([colourfulness, torch.ones_like(colourfulness)]),
        )

    def average(self) -> Tensor:
        """(1, 2, h, w) ab.

        Averaging colours that flicker greys them. One gain for the whole picture gives it back the colourfulness that
        the frames had; that is an average over time as well, and does not flicker either. Where the picture changes,
        as in a pan, those were other pictures: no more is given back than what the energy lost along the motion allows.
        """
        ab = self.ab[:, :2] / self.ab[:, 2:]
        gain = (self.colourfulness[0] / self.colourfulness[1] + 0.1) / (_colourfulness(ab) + 0.1)
        mean = ab[..., ::_STRIDE, ::_STRIDE].mean(dim=(2, 3)).square().sum()
        energies = (self.energy[:, 0] / self.energy[:, 1]).mean(), _energy(ab).mean()
        had, has = ((energy - mean).clamp_min(0).add(1).sqrt() + 0.3 * mean.sqrt() for energy in energies)
        most = (had / has).clamp_max(_MOST_GAIN)
        return ab.mul_(torch.minimum(gain, most).clamp_min(1))


class _Carry:
    """How the sums of a neighbour come over: moved by ``grid``, (h, w, 2), and weakened by ``trust``, (h, w)."""

    def __init__(self, grid: Plane, trust: Plane, strength: float, device: torch.device) -> None:
        self._grid = torch.from_numpy(grid)[None].to(device, non_blocking=True)
        self._trust = torch.from_numpy(trust)[None, None].to(device, non_blocking=True)
        self._strength = strength
        self._mean_trust = float(trust.mean())

    def onto(self, several: Sequence[_Sums], neighbour: _Sums) -> list[_Sums]:
        """Each of ``several`` plus this frame's share of the neighbour's."""
        ab = self._add([one.ab for one in several], neighbour.ab, 1)
        energy = self._add([one.energy for one in several], neighbour.energy, _STRIDE)
        share = neighbour.colourfulness * (self._mean_trust * self._strength)
        colourfulness = [one.colourfulness + share for one in several]
        return [_Sums(*sums) for sums in zip(ab, energy, colourfulness, strict=True)]

    def _add(self, planes: Sequence[Tensor], total: Tensor, stride: int) -> list[Tensor]:
        grid, trust = self._grid[:, ::stride, ::stride], self._trust[..., ::stride, ::stride]
        moved = F.grid_sample(total, grid, padding_mode="border", align_corners=False)
        return [torch.addcmul(plane, moved, trust, value=self._strength) for plane in planes]


@dataclass
class _Frame:
    """A frame on its way, its own sums, and those of it and the frames before it.

    ``from_previous`` is None where a shot begins. A frame that is ``alone`` takes no part in the averages.
    """

    glimpse: Glimpse
    from_previous: Link | None
    ab: Tensor
    own: _Sums
    forward: _Sums
    from_next: _Carry | None = None
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
        self._doubtful: list[_Frame] = []
        self._finished: list[Tensor] = []

    @torch.inference_mode()
    def push(self, ab: Tensor, glimpses: Sequence[Glimpse], links: Sequence[Link | None]) -> list[Tensor]:
        """Take the next frames.

        Args:
            ab: (N, 2, h, w) float32 on any device.
            glimpses: the same frames, as the motion search sees them.
            links: the motion between each of them and the frame before it; None for the first.

        Returns:
            Steady ab, (2, h, w) each, of those of the oldest frames whose turn it is.
        """
        for own, glimpse, link in zip(torch.split(ab, 1), glimpses, links, strict=True):
            sums = _Sums.of(own)
            self._add(_Frame(glimpse, link, own, sums, sums))
        return self._take()

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
        link = frame.from_previous
        if self._doubtful:
            link = find_motion(self._last.glimpse, frame.glimpse, (frame.ab.shape[-2], frame.ab.shape[-1]))
        if link is not None and link.in_one_shot:
            for flash in self._doubtful:
                flash.alone = True
            self._shot += self._doubtful
            self._doubtful = []
            self._join(frame, link)
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

    def _join(self, frame: _Frame, link: Link | None) -> None:
        frame.from_previous = link
        if link is None or self._last is None:
            self.shots += 1
            self.shot_starts.append(self._done)
        else:
            previous, device = self._last, frame.ab.device
            previous.from_next = _Carry(link.ahead, link.trust_ahead, self.strength, device)
            carry = _Carry(link.back, link.trust_back, self.strength, device)
            [frame.forward] = carry.onto([frame.own], previous.forward)
        self._last = frame
        self._shot.append(frame)
        if sum(not one.alone for one in self._shot) >= BLOCK + LOOK_AHEAD:
            self._finish(BLOCK)

    def _finish_shot(self) -> None:
        self._finish(len(self._shot))
        self._last = None

    def _finish(self, count: int) -> None:
        """Steady ab of the first ``count`` frames of the shot that are not alone, and of those between them."""
        chain = [frame for frame in self._shot if not frame.alone]
        backward: _Sums | None = None
        for number, frame in reversed(list(enumerate(chain))):
            finishes = number < count
            if backward is None or frame.from_next is None:
                sums = [frame.own, frame.forward]
            else:
                sums = frame.from_next.onto([frame.own, frame.forward] if finishes else [frame.own], backward)
            backward = sums[0]
            if finishes:
                frame.steady = sums[1].average()
        done = 0
        while self._shot and done < count:
            frame = self._shot.pop(0)
            steady = frame.ab if frame.alone or frame.steady is None else frame.steady
            if self._leveller and not frame.alone:
                steady = self._leveller(steady, frame.from_previous)
            self._finished.append(steady[0])
            done += not frame.alone
            self._done += 1


def _energy(ab: Tensor) -> Tensor:
    """(1, 1, h / 4, w / 4) a^2 + b^2 of every fourth pixel of (1, 2, h, w)."""
    return ab[..., ::_STRIDE, ::_STRIDE].square().sum(dim=1, keepdim=True)


def _colourfulness(ab: Tensor) -> Tensor:
    """Hasler and Süsstrunk's measure (2003) on a sample of (1, 2, h, w) ab: spread plus 0.3 times the mean's length."""
    variance, mean = torch.var_mean(ab[..., ::_STRIDE, ::_STRIDE], dim=(2, 3), correction=0)
    return variance.sum().sqrt() + 0.3 * mean.square().sum().sqrt()
