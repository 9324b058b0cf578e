"""Batches of frames on their way through the pipeline's middle: coloured, steadied over time, made into planes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from archivecolor.colorize.colourist import Coloured, Colourist, Planes, Shown
from archivecolor.colorize.motion import Glimpse
from archivecolor.colorize.temporal import Steadier
from archivecolor.colorize.workers import Workers
from archivecolor.film import LumaFrame

_EVERY: Final = 2
"""Of so many frames in a row the network is shown the first, where motion explains the others."""
_DENSE: Final = Fraction(3, 4)
"""Of the usual time between two frames: below it none is spared."""
_NO_PICTURE: Final = np.empty((0, 0), np.uint8)


@dataclass
class Batch:
    """Frames with what has been made of them so far.

    Attributes:
        frames: in presentation order; without their luma once this is ``shown``, where colour is steadied.
        shown: what the network is shown of them, where their motion is looked for.
        counts: what reading had met (`ReadReport.counts`) when each of the frames was given.
        shot_starts: places in ``frames`` of those that begin a shot; found where colour is steadied over time.
        repeated, carried, whole: for each of the frames, whether it repeats an earlier one of them, whether it has the
            colours of its neighbours alone, and whether it was coloured with its bars.
    """

    frames: list[LumaFrame] = field(default_factory=list)
    counts: list[dict[str, int]] = field(default_factory=list)
    shown: Shown | None = None
    coloured: Coloured | None = None
    planes: list[Planes] = field(default_factory=list)
    shot_starts: set[int] = field(default_factory=set)
    repeated: list[bool] = field(default_factory=list)
    carried: list[bool] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)


@dataclass(frozen=True)
class Steadying:
    """How colour is steadied over time; by default not at all.

    Attributes:
        strength, level: see `Steadier`.
        sparing_fps: the rate of a film of which the network is spared every second frame, where the one before explains
            it; None where it is shown all of them.
    """

    strength: float = 0.0
    level: bool = False
    sparing_fps: Fraction | None = None

    def __bool__(self) -> bool:
        return self.strength > 0 or self.level

    def wanted(self, before: LumaFrame | None, frames: Sequence[LumaFrame], explained: Sequence[bool]) -> list[bool]:
        """Which of the frames the network is to colour; ``before`` is the one before them."""
        neighbours = pairwise([before, *frames])
        return [
            not (known and one is not None and other is not None and self._is_second(one, other))
            for (one, other), known in zip(neighbours, explained, strict=True)
        ]

    def _is_second(self, one: LumaFrame, other: LumaFrame) -> bool:
        """Whether the network may be spared ``other``, which follows ``one``.

        By their times, since work that goes on in mid-film has to choose as work from its beginning did. Where frames
        of a variable rate are denser than on average, many would be second.
        """
        if self.sparing_fps is None or (other.time_s - one.time_s) * self.sparing_fps < _DENSE:
            return False
        first, second = (round(frame.time_s * self.sparing_fps) // _EVERY for frame in (one, other))
        return first == second


def colour_batches(
    batches: Iterable[Batch], colourist: Colourist, workers: Workers, steadying: Steadying
) -> Iterator[Batch]:
    """The batches in their order, with their planes."""

    def show(batch: Batch) -> Batch:
        if batch.frames:
            batch.shown = colourist.show(batch.frames)
            batch.frames = [replace(frame, luma=_NO_PICTURE) for frame in batch.frames]  # the decoder's memory is free
            colourist.glimpse(batch.shown)
        return batch

    def colour(batch: Batch) -> Batch:
        batch.coloured = colourist.colour(batch.frames) if batch.frames else None
        return batch

    def make_planes(batch: Batch) -> Batch:
        if batch.coloured:
            batch.planes = colourist.planes(batch.coloured)
            batch.repeated, batch.carried = batch.coloured.repeated, batch.coloured.carried
            batch.whole = batch.coloured.shown.whole
        batch.shown = batch.coloured = None
        return batch

    if steadying:
        coloured = steadied(workers.map(show, batches), colourist, workers, steadying)
    else:
        coloured = workers.map(colour, batches)
    return workers.map(make_planes, coloured)


def warm_up(colourist: Colourist, workers: Workers, luma: npt.NDArray[Any], frames: int, steadying: Steadying) -> None:
    """Have each of the workers colour a batch of ``frames``, a short pan across ``luma`` (H, W).

    A GPU loads its kernels when they are first used, and plans convolutions anew for each thread and each shape. The
    film's own batches need not wait for that, nor the encoder for them.
    """
    pan = [LumaFrame(np.roll(luma, 4 * n, axis=1), n, Fraction(1, 25), None, False) for n in range(frames)]
    for _ in colour_batches([Batch(pan) for _ in range(workers.count)], colourist, workers, steadying):
        pass


def steadied(batches: Iterable[Batch], colourist: Colourist, workers: Workers, steadying: Steadying) -> Iterator[Batch]:
    """Batches that are ``shown`` with steady colours; each comes out once enough of what follows it has gone in.

    Motion is looked for first, which tells what the network is to colour of those that are not ``coloured`` yet.
    """

    def after_one_another() -> Iterator[tuple[Batch, tuple[LumaFrame, Glimpse] | None]]:
        before = None
        for batch in batches:
            if batch.shown:
                colourist.glimpse(batch.shown)
            yield batch, before
            if batch.shown:
                before = batch.frames[-1], batch.shown.glimpses[-1]

    def colour(neighbours: tuple[Batch, tuple[LumaFrame, Glimpse] | None]) -> Batch:
        batch, before = neighbours
        if batch.shown:
            frame, glimpse = before or (None, None)
            colourist.link(batch.shown, glimpse)
            if batch.coloured is None:
                wanted = steadying.wanted(frame, batch.frames, batch.shown.explained)
                batch.coloured = colourist.ask(batch.shown, wanted)
        return batch

    steadier = Steadier(steadying.strength, level=steadying.level)
    waiting: deque[Batch] = deque()
    ready: deque[torch.Tensor] = deque()
    given = 0

    def complete() -> Iterator[Batch]:
        nonlocal given
        while waiting and len(ready) >= len(waiting[0].frames):
            batch = waiting.popleft()
            if batch.coloured:
                batch.coloured.ab = torch.stack([ready.popleft() for _ in batch.frames])
                while steadier.shot_starts and steadier.shot_starts[0] < given + len(batch.frames):
                    batch.shot_starts.add(steadier.shot_starts.popleft() - given)
                given += len(batch.frames)
            yield batch

    for batch in workers.map(colour, after_one_another()):
        waiting.append(batch)
        if batch.coloured and batch.shown:
            ready += steadier.push(batch.coloured.ab, batch.shown.glimpses, batch.shown.warps, batch.coloured.carried)
            batch.shown.warps.clear()
        yield from complete()
    ready += steadier.flush()
    yield from complete()
