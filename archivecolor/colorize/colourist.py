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
from archivecolor.colorize.engine import Colours, Engine
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
        glimpses: the frames as `motion.find_motion` takes them; empty until `Colourist.glimpse` was asked for them.
        warps: the motion between each of them and the one before it, None where there is none.
        explained: for each, whether the one before, moved, explains it. Both are empty until `Colourist.link` was asked
            for them.
    """

    luma: Tensor
    l_norm: Tensor
    whole: list[bool]
    glimpses: list[Glimpse] = field(default_factory=list)
    warps: list[Warps | None] = field(default_factory=list)
    explained: list[bool] = field(default_factory=list)


@dataclass
class Coloured:
    """Frames and their colours.

    Attributes:
        ab: (N, 2, h, w) a and b, float32, of what the network was shown.
        carried: for each frame, whether it was left out, and has no ab of its own.
        repeated: for each frame, whether it repeats an earlier one of them.
    """

    shown: Shown
    ab: Tensor
    carried: list[bool]
    repeated: list[bool]


class Colourist:
    """The film's engine, recombiner and picture, and who looks for motion.

    Its methods may run in several threads at once.
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
        return self.ask(self.show(frames))

    @torch.inference_mode()
    def show(self, frames: Sequence[LumaFrame]) -> Shown:
        """The first half of `colour`: upload, lightness, and its reduction to the network's size."""
        parts = self.engine.within_memory(frames, self._show)
        if len(parts) == 1:
            return parts[0]
        luma, l_norm = (torch.cat([getattr(part, name) for part in parts]) for name in ("luma", "l_norm"))
        return Shown(luma, l_norm, [whole for part in parts for whole in part.whole])

    def _show(self, frames: Sequence[LumaFrame]) -> Shown:
        luma = upload([frame.luma for frame in frames], self.engine.device)
        black, white = self.recombiner.source_range
        whole = lit_outside(luma, self.picture, black=black, white=white).tolist()
        runs = [(lit, len(list(run))) for lit, run in itertools.groupby(whole)]
        parts = torch.split(luma, [length for _, length in runs])
        l_norm = torch.cat([self._reduce(part, lit) for part, (lit, _) in zip(parts, runs, strict=True)])
        return Shown(luma, l_norm, whole)

    @torch.inference_mode()
    def ask(self, shown: Shown, wanted: Sequence[bool] | None = None) -> Coloured:
        """The second half: the network's answer, for all frames or for those that are ``wanted``."""
        wanted = wanted or [True] * len(shown.whole)
        answers = self.engine.within_memory(range(len(wanted)), lambda some: self._ask(shown, wanted, some))
        ab = answers[0].ab if len(answers) == 1 else torch.cat([answer.ab for answer in answers])
        if ab.shape[0] != len(shown.whole) or not bool(torch.isfinite(ab).all()):
            raise FilmDecodeError(
                f"{self.source}: the network returned no usable colour for a frame; try --precision fp32, "
                f"or other weights than {self.engine.weights_path}"
            )
        repeated = [repeats for answer in answers for repeats in answer.repeated]
        return Coloured(shown, ab, [not asked for asked in wanted], repeated)

    def _ask(self, shown: Shown, wanted: Sequence[bool], numbers: Sequence[int]) -> Colours:
        some = slice(numbers[0], numbers[-1] + 1)
        return self.engine.colours(shown.l_norm[some], wanted[some])

    def glimpse(self, shown: Shown) -> None:
        """Fill in ``glimpses``, unless they are."""
        if shown.glimpses:
            return
        [lightness] = fetch([color.L_SCALE * (shown.l_norm[:, 0].float() + 1)])
        shown.glimpses = [glimpse(L, whole) for L, whole in zip(lightness.numpy(), shown.whole, strict=True)]

    def link(self, shown: Shown, before: Glimpse | None) -> None:
        """Fill in ``warps`` and ``explained``; ``before`` is the glimpse of the frame before these."""
        links = self._find_links(before, shown.glimpses)
        shown.warps = warps_of(links, (shown.l_norm.shape[-2], shown.l_norm.shape[-1]), shown.l_norm.device)
        shown.explained = [link is not None and link.explains for link in links]

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
