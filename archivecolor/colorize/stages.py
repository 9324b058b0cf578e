"""Batches of frames on their way through the pipeline's middle: coloured, steadied over time, made into planes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from archivecolor.colorize.colourist import Coloured, Colourist, Planes
from archivecolor.colorize.motion import Glimpse
from archivecolor.colorize.temporal import Steadier
from archivecolor.colorize.workers import Workers
from archivecolor.film import LumaFrame


@dataclass
class Batch:
    """Frames with what has been made of them so far.

    Attributes:
        counts: what reading had met (`ReadReport.counts`) when each of the frames was given.
        shot_starts: places in ``frames`` of those that begin a shot; found where colour is steadied over time.
        repeated: how many of the frames repeat an earlier one of them.
        whole: for each of the frames, whether it was coloured with its bars.
    """

    frames: list[LumaFrame] = field(default_factory=list)
    counts: list[dict[str, int]] = field(default_factory=list)
    coloured: Coloured | None = None
    planes: list[Planes] = field(default_factory=list)
    shot_starts: set[int] = field(default_factory=set)
    repeated: int = 0
    whole: list[bool] = field(default_factory=list)


def colour_batches(
    batches: Iterable[Batch], colourist: Colourist, workers: Workers, strength: float, *, level: bool = False
) -> Iterator[Batch]:
    """The batches in their order, with their planes; see `Steadier`, which ``strength`` 0 without ``level`` spares."""

    def colour(batch: Batch) -> Batch:
        batch.coloured = colourist.colour(batch.frames) if batch.frames else None
        if batch.coloured and (strength or level):
            colourist.glimpse(batch.coloured)
        return batch

    def make_planes(batch: Batch) -> Batch:
        if batch.coloured:
            batch.planes = colourist.planes(batch.coloured)
            batch.repeated, batch.whole = batch.coloured.repeated, batch.coloured.shown.whole
        batch.coloured = None
        return batch

    coloured = workers.map(colour, batches)
    if strength or level:
        coloured = steadied(coloured, colourist, workers, strength, level=level)
    return workers.map(make_planes, coloured)


def warm_up(
    colourist: Colourist,
    workers: Workers,
    luma: npt.NDArray[Any],
    frames: int,
    strength: float,
    *,
    level: bool = False,
) -> None:
    """Have each of the workers colour a batch of ``frames``, a short pan across ``luma`` (H, W).

    A GPU loads its kernels when they are first used, and plans convolutions anew for each thread and each shape. The
    film's own batches need not wait for that, nor the encoder for them.
    """
    pan = [LumaFrame(np.roll(luma, 4 * n, axis=1), n, Fraction(1, 25), None, False) for n in range(frames)]
    for _ in colour_batches([Batch(pan) for _ in range(workers.count)], colourist, workers, strength, level=level):
        pass


def steadied(
    batches: Iterable[Batch], colourist: Colourist, workers: Workers, strength: float, *, level: bool = False
) -> Iterator[Batch]:
    """The batches with steady colours; each comes out once enough of what follows it has gone in."""

    def after_one_another() -> Iterator[tuple[Batch, Glimpse | None]]:
        before = None
        for batch in batches:
            if batch.coloured:
                colourist.glimpse(batch.coloured)
            yield batch, before
            if batch.coloured:
                before = batch.coloured.glimpses[-1]

    def find_motion(neighbours: tuple[Batch, Glimpse | None]) -> Batch:
        batch, before = neighbours
        if batch.coloured:
            colourist.link(batch.coloured, before)
        return batch

    steadier = Steadier(strength, level=level)
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

    for batch in workers.map(find_motion, after_one_another()):
        waiting.append(batch)
        if batch.coloured:
            ready += steadier.push(batch.coloured.ab, batch.coloured.glimpses, batch.coloured.warps)
            batch.coloured.warps.clear()
        yield from complete()
    ready += steadier.flush()
    yield from complete()
