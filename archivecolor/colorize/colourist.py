"""Luma of frames to coloured planes: what the threads in the middle of the pipeline do."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from archivecolor import color
from archivecolor.colorize.engine import Engine
from archivecolor.colorize.mattes import Rectangle, lit_outside
from archivecolor.colorize.motion import Glimpse, find_links, glimpse
from archivecolor.colorize.motion_processes import FindLinks
from archivecolor.colorize.recombine import Recombiner
from archivecolor.colorize.transfer import download, fetch, upload
from archivecolor.colorize.warping import Warps, warps_of
from archivecolor.errors import FilmDecodeError
from archivecolor.film import LumaFrame

Planes = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]


@dataclass
class Shown:
    """A batch of frames on the engine's device, ready for the network.

    Attributes:
        luma: (N, H, W) source code values.
        l_norm: (N, 1, h, w) what the network is shown of each, -1..1.
        whole: for each frame, whether that is all of it rather than the film's picture.
    """

    luma: Tensor
    l_norm: Tensor
    whole: list[bool]


@dataclass
class Coloured:
    """Frames and their colours.

    Attributes:
        ab: (N, 2, h, w) a and b, float32, of what the network was shown.
        repeated: how many of the frames repeat an earlier one of them.
        glimpses: the frames as `motion.find_motion` takes them, and `warps` what it found between each and the one
            before it. Both are empty until `Colourist.glimpse` and `Colourist.link` were asked for them.
    """

    shown: Shown
    ab: Tensor
    repeated: int = 0
    glimpses: list[Glimpse] = field(default_factory=list)
    warps: list[Warps | None] = field(default_factory=list)


class Colourist:
    """The film's engine, recombiner and picture, and who looks for motion.

    `colour`, `link` and `planes` may run in several threads at once.
    """

    def __init__(
        self,
        source: Path,
        engine: Engine,
        recombiner: Recombiner,
        picture: Rectangle,
        find_links: FindLinks = find_links,
    ) -> None:
        self.source, self.engine, self.recombiner, self.picture = source, engine, recombiner, picture
        self._find_links = find_links
        self._shape = engine.network_shape(picture.bottom - picture.top, picture.right - picture.left)

    def fit(self, luma: Sequence[npt.NDArray[Any]]) -> None:
        """Let the engine choose its arithmetic by a few of the film's frames."""
        self.engine.fit([self._reduce(upload([plane], self.engine.device), whole=False) for plane in luma])

    def colour(self, frames: Sequence[LumaFrame]) -> Coloured:
        """The frames' colours, at the network's size."""
        parts = self.engine.within_memory(frames, lambda some: self.ask(self.show(some)))
        if len(parts) == 1:
            return parts[0]
        shown = [part.shown for part in parts]
        luma, l_norm = (torch.cat([getattr(part, name) for part in shown]) for name in ("luma", "l_norm"))
        whole = [whole for part in shown for whole in part.whole]
        repeated = sum(part.repeated for part in parts)
        return Coloured(Shown(luma, l_norm, whole), torch.cat([part.ab for part in parts]), repeated)

    @torch.inference_mode()
    def show(self, frames: Sequence[LumaFrame]) -> Shown:
        """The first half of `colour`: upload, lightness, and its reduction to the network's size."""
        luma = upload([frame.luma for frame in frames], self.engine.device)
        black, white = self.recombiner.source_range
        whole = lit_outside(luma, self.picture, black=black, white=white).tolist()
        runs = [(lit, len(list(run))) for lit, run in itertools.groupby(whole)]
        parts = torch.split(luma, [length for _, length in runs])
        l_norm = torch.cat([self._reduce(part, lit) for part, (lit, _) in zip(parts, runs, strict=True)])
        return Shown(luma, l_norm, whole)

    def ask(self, shown: Shown) -> Coloured:
        """The second half: the network's answer."""
        ab, repeated = self.engine.colours(shown.l_norm)
        if ab.shape[0] != len(shown.whole) or not bool(torch.isfinite(ab).all()):
            raise FilmDecodeError(
                f"{self.source}: the network returned no usable colour for a frame; try --precision fp32, "
                f"or other weights than {self.engine.weights_path}"
            )
        return Coloured(shown, ab, repeated)

    def glimpse(self, coloured: Coloured) -> None:
        """Fill in ``glimpses``, unless they are."""
        if coloured.glimpses:
            return
        [lightness] = fetch([color.L_SCALE * (coloured.shown.l_norm[:, 0].float() + 1)])
        formats = coloured.shown.whole
        coloured.glimpses = [glimpse(L, whole) for L, whole in zip(lightness.numpy(), formats, strict=True)]

    def link(self, coloured: Coloured, before: Glimpse | None) -> None:
        """Fill in ``warps``; ``before`` is the glimpse of the frame before these."""
        links = self._find_links(before, coloured.glimpses)
        coloured.warps = warps_of(links, (coloured.ab.shape[-2], coloured.ab.shape[-1]), coloured.ab.device)

    def planes(self, coloured: Coloured) -> list[Planes]:
        """Y' (N, H, W) and Cb, Cr (N, h, w) code values in the output's depth, for each part of ``coloured``.

        One part, or several where frames differ in what the network was shown of them, or the device's memory does
        not hold all at once.
        """
        parts = []
        whole = coloured.shown.whole
        for _, run in itertools.groupby(range(len(whole)), key=whole.__getitem__):
            parts += self.engine.within_memory(list(run), lambda numbers: self._planes(coloured, numbers))
        return parts

    def _planes(self, coloured: Coloured, numbers: Sequence[int]) -> Planes:
        shown, some = coloured.shown, slice(numbers[0], numbers[-1] + 1)
        picture = None if shown.whole[numbers[0]] else self.picture
        planes = self.recombiner(shown.luma[some], coloured.ab[some], picture)
        y, cb, cr = download(planes, self.recombiner.out.bit_depth)
        return y, cb, cr

    def _reduce(self, luma: Tensor, whole: bool) -> Tensor:
        picture = None if whole else self.picture
        return self.engine.network_input(self.recombiner.lightness(luma), picture, self._shape)
