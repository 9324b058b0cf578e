"""A clip in colour made grey, colourised, and held against itself: how steady and how close its colours are."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from archivecolor import color
from archivecolor.colorize.engine import Engine
from archivecolor.colorize.motion import find_motion, glimpse
from archivecolor.colorize.parts import analyse
from archivecolor.colorize.pipeline import colorize_film
from archivecolor.config import ColorizeConfig
from archivecolor.errors import DataError
from archivecolor.evaluation.steadiness import ClipScores, Step, visible
from archivecolor.evaluation.table import GREY, TRUTH
from archivecolor.film import OutputSettings, probe, read_rgb
from archivecolor.matrices import MATRICES

FRAME_BY_FRAME: Final = "frame by frame"
STEADIED: Final = "steadied"
POINTS: Final = ((0.25, 0.25), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75), (0.75, 0.75))
"""Where ab is followed over time unless said otherwise: parts of width and height."""
_POINT_PX = 5
_LEAST_FLOW_PX = 32

COLUMNS: Final[tuple[tuple[str, str, int, int], ...]] = (
    ("warping_error_ab", "warping error ab", 1, 3),
    ("against_truth", "of truth's", 1, 2),
    ("warping_error_rgb", "RGB, 1e-3", 1000, 3),
    ("cdc", "CDC, 1e-3", 1000, 3),
    ("colourfulness", "colourfulness", 1, 2),
    ("colourfulness_absolute", "(absolute)", 1, 2),
    ("l1", "L1", 1, 2),
)
"""Field of `FilmRow`, heading, factor and decimals that it is shown with."""


@dataclass(frozen=True)
class FilmRow:
    """One rendering of the clip; None where a figure does not exist.

    ``warping_error_ab`` is in Lab units squared, ``against_truth`` its ratio to the truth's own, ``warping_error_rgb``
    for R'G'B' 0..1, ``l1`` the mean |ab difference| from the truth in Lab units.
    """

    method: str
    warping_error_ab: float | None
    against_truth: float | None
    warping_error_rgb: float | None
    cdc: float | None
    colourfulness: float | None
    colourfulness_absolute: float | None
    l1: float | None

    def cells(self) -> list[str]:
        """The figures as text, a dash where there is none."""
        values = [(getattr(self, name), factor, decimals) for name, _, factor, decimals in COLUMNS]
        return ["–" if value is None else f"{value * factor:.{decimals}f}" for value, factor, decimals in values]


@dataclass(frozen=True)
class FilmEvaluation:
    """A clip's figures, in total and frame by frame.

    Attributes:
        size_px: width and height that it was measured at.
        shots: number of shots; nothing is compared across cuts.
        rows: grey, each rendering, and, for a clip in colour, the truth.
        scores: by method, with the figures of each frame.
        points: where ab is followed, parts of width and height.
        ab: by method, (frames, points, 2) a and b there.
    """

    film: Path
    frames: int
    size_px: tuple[int, int]
    shots: int
    rows: list[FilmRow]
    scores: dict[str, ClipScores]
    points: tuple[tuple[float, float], ...]
    ab: dict[str, npt.NDArray[np.float32]]

    def to_dict(self) -> dict[str, Any]:
        """All figures, unrounded, ready for JSON; a frame without a predecessor has null for its warping error."""
        return {
            "film": str(self.film),
            "frames": self.frames,
            "width_px": self.size_px[0],
            "height_px": self.size_px[1],
            "shots": self.shots,
            "rows": [asdict(row) for row in self.rows],
            "points": [list(point) for point in self.points],
            "per_frame": {
                name: {
                    "warping_error_ab": _without_nan(scores.warping_ab),
                    "warping_error_rgb": _without_nan(scores.warping_rgb),
                    "colourfulness": scores.colourfulness,
                    "ab": self.ab[name].round(3).tolist(),
                }
                for name, scores in self.scores.items()
            },
        }

    def to_markdown(self) -> str:
        """A table for a report."""
        head = [self.film.name, *(heading for _, heading, _, _ in COLUMNS)]
        lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * len(COLUMNS) + "|"]
        lines += ["| " + " | ".join([row.method, *row.cells()]) + " |" for row in self.rows]
        width_px, height_px = self.size_px
        shots = "1 shot" if self.shots == 1 else f"{self.shots} shots"
        return "\n".join([*lines, "", f"{self.frames} frames, {shots}, at {width_px}x{height_px}."])


def evaluate_film(
    film: Path,
    engine: Engine,
    config: ColorizeConfig,
    settings: OutputSettings | None = None,
    *,
    size_px: int = 256,
    points: tuple[tuple[float, float], ...] = POINTS,
    on_step: Callable[[str], None] | None = None,
) -> FilmEvaluation:
    """Colourise a clip from its luma alone, with and without steadying, and measure both beside truth and grey.

    The clip goes through `colorize_film` into a Matroska file, which is read again. A clip that is black-and-white
    itself has no truth to be compared with.

    Args:
        engine, config: how it is coloured; where ``config.temporal`` is 0, frame by frame alone.
        settings: how it is encoded; without loss, in the depth that it came in, by default.
        size_px: longest side that it is measured at.
        points: where ab is followed, parts of width and height.
        on_step: called with what is being done, in words.

    Raises:
        FilmOpenError, FilmDecodeError, FilmEncodeError, DeviceError: as `colorize_film`.
        DataError: the renderings do not match the clip frame for frame.
    """
    tell = on_step or (lambda _: None)
    info = probe(film)
    with tempfile.TemporaryDirectory(prefix="archivecolor-evaluate-") as folder:
        made: dict[str, Path] = {}
        configs = {FRAME_BY_FRAME: replace(config, temporal=0.0)} | ({STEADIED: config} if config.temporal else {})
        for number, (name, one) in enumerate(configs.items()):
            tell(f"{film.name}: colouring, {name}")
            made[name] = Path(folder) / f"{number}.mkv"
            colorize_film(film, made[name], engine, one, settings)
        tell(f"{film.name}: measuring")
        renderings = {name: read_rgb(path, size_px) for name, path in made.items()}
        truth = read_rgb(info, size_px, start_s=config.start_s, end_s=config.end_s)
        has_truth = not analyse(info).is_black_and_white
        return _measure(film, truth, renderings, has_truth, MATRICES[info.picture.matrix], points)


@torch.inference_mode()
def _measure(
    film: Path,
    truth: Iterator[npt.NDArray[np.uint16]],
    renderings: Mapping[str, Iterator[npt.NDArray[np.uint16]]],
    has_truth: bool,
    luma_weights: tuple[float, float],
    points: tuple[tuple[float, float], ...],
) -> FilmEvaluation:
    names = [GREY, *renderings, *([TRUTH] if has_truth else [])]
    scores = {name: ClipScores() for name in names}
    ab: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in names}
    shots, before, size = 0, None, (0, 0)
    for true, *made in itertools.zip_longest(truth, *renderings.values()):
        if true is None or any(one is None or one.shape != true.shape for one in made):
            raise DataError(f"{film}: what was made of it has not the same frames; is the file damaged?")
        size = true.shape[1], true.shape[0]
        true_rgb = _tensor(true)
        grey = _luma(true_rgb, *luma_weights)
        now = _View(grey)
        step = None if before is None else before.step_to(now)
        shots += step is None
        before = now
        true_ab = color.rgb_to_lab(true_rgb / 255)[1:] if has_truth else None
        pictures = [grey.expand(3, -1, -1), *map(_tensor, made), *([true_rgb] if has_truth else [])]
        for name, rgb in zip(names, pictures, strict=True):
            ab[name].append(_at_points(scores[name].update(rgb, step, true_ab), points))
    own = scores[TRUTH].summary()["warping_error_ab"] if has_truth else None
    rows = [_row(name, scores[name], own) for name in names]
    followed = {name: np.stack(values) for name, values in ab.items()}
    return FilmEvaluation(film, len(followed[GREY]), size, shots, rows, scores, points, followed)


class _View:
    """A frame as optical flow sees it; not the flow that steadying uses, but a finer one at the size measured at."""

    def __init__(self, grey: Tensor) -> None:
        self._codes = grey[0].round().to(torch.uint8).numpy()
        self._glimpse = glimpse(color.lightness(color.srgb_to_linear(grey[0] / 255)).numpy())

    def step_to(self, other: _View) -> Step | None:
        """Flow from this frame to ``other``, the next one; None where a cut lies between them."""
        link = find_motion(self._glimpse, other._glimpse)
        if link is None or not link.in_one_shot:
            return None
        flow, back = self._flow_to(other), other._flow_to(self)
        return Step(flow, visible(flow, back))

    def _flow_to(self, other: _View) -> Tensor:
        h, w = self._codes.shape
        if min(h, w) < _LEAST_FLOW_PX:
            return torch.zeros(2, h, w)
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        flow = search.calc(self._codes, other._codes, np.zeros((h, w, 2), np.float32))
        return torch.from_numpy(flow).permute(2, 0, 1).contiguous()


def _tensor(frame: npt.NDArray[np.uint16]) -> Tensor:
    """(3, H, W) R'G'B' 0..255 float32."""
    return torch.from_numpy(frame.astype(np.float32)).permute(2, 0, 1).contiguous() / 257


def _luma(rgb: Tensor, kr: float, kb: float) -> Tensor:
    """(1, H, W) of (3, H, W)."""
    return kr * rgb[:1] + (1 - kr - kb) * rgb[1:2] + kb * rgb[2:]


def _at_points(ab: Tensor, points: tuple[tuple[float, float], ...]) -> npt.NDArray[np.float32]:
    """(points, 2): mean a and b of a few pixels around each."""
    h, w = ab.shape[-2:]
    around = []
    for x, y in points:
        top, left = (max(0, min(round(p * s) - _POINT_PX // 2, s - _POINT_PX)) for p, s in ((y, h), (x, w)))
        around.append(ab[:, top : top + _POINT_PX, left : left + _POINT_PX].mean(dim=(1, 2)))
    return torch.stack(around).numpy()


def _row(name: str, scores: ClipScores, truth_error: float | None) -> FilmRow:
    figures = scores.summary()
    error = figures["warping_error_ab"]
    ratio = error / truth_error if error is not None and truth_error else None
    return FilmRow(method=name, against_truth=ratio, **figures)


def _without_nan(values: list[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]
