"""Batches of frames on their way through the pipeline's middle: coloured, steadied over time, made into planes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch

from archivecolor.colorize.colourist import Coloured, Colourist, Planes
from archivecolor.colorize.motion import Glimpse
from archivecolor.colorize.temporal import Steadier
from archivecolor.colorize.workers import Workers
from archivecolor.film import LumaFrame, SidePacket


@dataclass
class Batch:
    """Frames with what has been made of them so far, and the packets of other streams that lay between them."""

    frames: list[LumaFrame] = field(default_factory=list)
    packets: list[SidePacket] = field(default_factory=list)
    coloured: Coloured | None = None
    planes: list[Planes] = field(default_factory=list)


def colour_batches(
    batches: Iterable[Batch], colourist: Colourist, workers: Workers, strength: float, *, level: bool = False
) -> Iterator[Batch]:
    """The batches in their order, with their planes; see `Steadier`, which ``strength`` 0 without ``level`` spares."""

    def colour(batch: Batch) -> Batch:
        batch.coloured = colourist.colour(batch.frames) if batch.frames else None
        return batch

    def make_planes(batch: Batch) -> Batch:
        batch.planes = colourist.planes(batch.coloured) if batch.coloured else []
        batch.coloured = None
        return batch

    coloured = workers.map(colour, batches)
    if strength or level:
        coloured = steadied(coloured, colourist, workers, strength, level=level)
    return workers.map(make_planes, coloured)


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

    def complete() -> Iterator[Batch]:
        while waiting and len(ready) >= len(waiting[0].frames):
            batch = waiting.popleft()
            if batch.coloured:
                batch.coloured.ab = torch.stack([ready.popleft() for _ in batch.frames])
            yield batch

    steadier = Steadier(strength, level=level)
    waiting: deque[Batch] = deque()
    ready: deque[torch.Tensor] = deque()
    for batch in workers.map(find_motion, after_one_another()):
        waiting.append(batch)
        if batch.coloured:
            ready += steadier.push(batch.coloured.ab, batch.coloured.glimpses, batch.coloured.links)
            batch.coloured.links.clear()
        yield from complete()
    ready += steadier.flush()
    yield from complete()
