"""Steady colour: each frame's ab averaged with its neighbours' in the shot, carried along the motion.

Forward through a shot, a frame's sum is its own ab and, weighted by strength and trust, its predecessor's sum moved to
where the picture has moved; backward the same. Both sums less the frame's own, divided by the weights that went in,
are its steady ab: an average over neighbours that dies off exponentially on either side, so that it can neither drift
nor fade, whatever the shot's length, and that leaves out what the motion does not explain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from archivecolor.colorize.mattes import Rectangle
from archivecolor.colorize.motion import Glimpse, Link, MotionFinder, Plane

BLOCK: Final = 16
"""Frames of a shot that are finished at a time, counted from its beginning."""
LOOK_AHEAD: Final = 8
"""Frames after a block that are taken into account for it."""
LONGEST_FLASH: Final = 2
"""So many frames that look like nothing around them do not end a shot: a flash, a splice, a damaged frame."""
_MOST_GAIN: Final = 1.5


class _Carry:
    """How the sums of a neighbour come over: moved by ``grid``, (h, w, 2), and weakened by ``trust``, (h, w)."""

    def __init__(self, grid: Plane, trust: Plane, strength: float, device: torch.device) -> None:
        self._grid = torch.from_numpy(grid)[None].to(device, non_blocking=True)
        self._trust = torch.from_numpy(trust)[None, None].to(device, non_blocking=True)
        self._strength = strength
        self._mean_trust = float(trust.mean())

    def onto(self, pictures: Sequence[Tensor], total: Tensor) -> list[Tensor]:
        """Each of ``pictures``, (1, 3, h, w), plus this frame's share of the neighbour's sum."""
        moved = F.grid_sample(total, self._grid, padding_mode="border", align_corners=False)
        return [torch.addcmul(picture, moved, self._trust, value=self._strength) for picture in pictures]

    def energy(self, total: Tensor) -> Tensor:
        """This frame's share of the neighbour's (2,) energy."""
        return total * (self._mean_trust * self._strength)


@dataclass
class _Frame:
    """A frame on its way. ``own`` and ``forward`` are (1, 3, h, w): weighted a, b, and the weight.

    ``energy`` and ``forward_energy`` are (2,): weighted mean of a^2 + b^2 over the picture, and its weight. A frame
    that is ``alone`` takes no part in the averages.
    """

    glimpse: Glimpse
    from_previous: Future[Link] | None
    ab: Tensor
    own: Tensor
    energy: Tensor
    forward: Tensor
    forward_energy: Tensor
    from_next: _Carry | None = None
    alone: bool = False
    steady: Tensor | None = None


class Steadier:
    """ab of one film's frames in, in presentation order; the same frames' steady ab out, some frames later.

    Call `watch` with a batch of luma, then `push` with its ab; `flush` at the end. What comes out depends on the
    frames of a shot alone, not on how they were batched. Use it in a ``with`` block, which ends its threads.

    Args:
        strength: how much of its neighbour's sum a frame takes on where motion is certain, 0 to below 1. The average
            reaches over about 1 / (1 - strength) frames on either side.
        motion: what finds the motion; one of its own by default.
    """

    def __init__(self, strength: float, motion: MotionFinder | None = None) -> None:
        self.strength = strength
        self.shots = 0
        self._motion = motion or MotionFinder()
        self._watched: deque[tuple[Glimpse, Future[Link] | None]] = deque()
        self._latest: Glimpse | None = None
        self._incoming: list[_Frame] = []
        self._shot: list[_Frame] = []
        self._doubtful: list[_Frame] = []
        self._last: _Frame | None = None
        self._finished: list[Tensor] = []

    def __enter__(self) -> Steadier:
        return self

    def __exit__(self, *_: object) -> None:
        self._motion.close()

    def watch(self, luma: Sequence[npt.NDArray[Any]], size: tuple[int, int], picture: Rectangle | None = None) -> None:
        """Begin to find the motion of the next frames, each (H, W) luma code values, in threads of its own.

        ``size`` is the height and width of the ab to come, ``picture`` the part of the frames that it belongs to.
        """
        for plane in luma:
            glimpse = self._motion.look(plane, size, picture)
            link = self._motion.link(self._latest, glimpse) if self._latest is not None else None
            self._watched.append((glimpse, link))
            self._latest = glimpse

    @torch.inference_mode()
    def push(self, ab: Tensor) -> list[Tensor]:
        """Take the next frames' (N, 2, h, w) float32 ab; returns the steady ab, (2, h, w) each, that are ready.

        Frames pushed now are looked at only at the next call, so that their motion has time to be found.
        """
        for frame in self._incoming:
            self._add(frame)
        self._incoming = [self._frame(one) for one in ab.split(1)]
        return self._take()

    @torch.inference_mode()
    def flush(self) -> list[Tensor]:
        """The film is over: the steady ab of all frames that are left."""
        for frame in self._incoming:
            self._add(frame)
        self._incoming = []
        while self._doubtful:
            self._cut()
        self._finish_shot()
        self._latest = None
        return self._take()

    def _take(self) -> list[Tensor]:
        finished, self._finished = self._finished, []
        return finished

    def _frame(self, ab: Tensor) -> _Frame:
        glimpse, link = self._watched.popleft()
        own = torch.cat([ab, torch.ones_like(ab[:, :1])], dim=1)
        energy = torch.stack([_mean_square(ab), ab.new_ones(())])
        return _Frame(glimpse, link, ab, own, energy, forward=own, forward_energy=energy)

    def _add(self, frame: _Frame) -> None:
        """Find the frame's place: next in the shot, end of a flash, or perhaps the first of another shot."""
        if self._last is None:
            self._join(frame, None)
            return
        follows = frame.from_previous if not self._doubtful else self._motion.link(self._last.glimpse, frame.glimpse)
        link = follows.result() if follows is not None else None
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
        if link is None or self._last is None:
            self.shots += 1
        else:
            previous, device = self._last, frame.ab.device
            previous.from_next = _Carry(link.ahead, link.trust_ahead, self.strength, device)
            carry = _Carry(link.back, link.trust_back, self.strength, device)
            [frame.forward] = carry.onto([frame.own], previous.forward)
            frame.forward_energy = carry.energy(previous.forward_energy) + frame.energy
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
        backward = backward_energy = None
        for number, frame in reversed(list(enumerate(chain))):
            if backward is None or backward_energy is None or frame.from_next is None:
                total, energy = frame.forward, frame.forward_energy
                backward, backward_energy = frame.own, frame.energy
            else:
                total, backward = frame.from_next.onto([frame.forward, frame.own], backward)
                share = frame.from_next.energy(backward_energy)
                energy, backward_energy = frame.forward_energy + share, frame.energy + share
            if number < count:
                frame.steady = _average(total, energy)
        done = 0
        while self._shot and done < count:
            frame = self._shot.pop(0)
            self._finished.append(frame.ab[0] if frame.alone or frame.steady is None else frame.steady[0])
            done += not frame.alone


def _average(total: Tensor, energy: Tensor) -> Tensor:
    """(1, 2, h, w) ab of a (1, 3, h, w) sum.

    Averaging colours that flicker greys them. One gain for the whole picture gives it back the strength of colour
    that the averaged frames had; that is an average over time as well, and does not flicker either.
    """
    ab = total[:, :2] / total[:, 2:]
    gain = (energy[0] / energy[1] / _mean_square(ab).clamp_min(1e-6)).sqrt_().clamp_(max=_MOST_GAIN)
    return ab.mul_(gain)


def _mean_square(ab: Tensor) -> Tensor:
    flat = ab.flatten()
    return flat.dot(flat) / flat.numel()
