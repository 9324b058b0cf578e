"""Figures of evaluations as PNG: the paper's Fig. 4 and Fig. 5, and the colours of a clip over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from archivecolor.errors import ConfigError, DataError
from archivecolor.evaluation.films import FilmEvaluation
from archivecolor.evaluation.metrics import AB_BINS, AB_LOWEST
from archivecolor.evaluation.table import GREY, TRUTH, Evaluation


def draw_histograms(evaluation: Evaluation, path: Path) -> None:
    """Fig. 4: natural logarithm of the pixels an image in each one-unit bin of a and of b, each method and the truth.

    Raises:
        ConfigError: matplotlib is not installed.
        DataError: the file cannot be written.
    """
    figure = _figure(11, 4.2)
    values = torch.arange(AB_BINS) + AB_LOWEST + 0.5
    for channel, axes in enumerate(figure.subplots(1, 2, sharey=True)):
        for name, histogram in evaluation.histograms.items():
            if name == GREY:
                continue  # one bin
            logs = torch.where(histogram[channel] > 0, histogram[channel].log(), torch.nan)
            style = {"color": "black", "linewidth": 1.8} if name == TRUTH else {"linewidth": 1.2}
            axes.plot(values, logs, label=name, **style)
        axes.set_title("ab"[channel])
        axes.set_xlabel(f"{'ab'[channel]}* (CIE Lab)")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("ln(pixels an image)")
    figure.axes[1].legend(fontsize="small")
    _save(figure, path)


def draw_grid(evaluation: Evaluation, path: Path) -> None:
    """Fig. 5: a row a photograph, grey, each method and the truth beside each other.

    Raises:
        ConfigError: matplotlib is not installed, or no pictures were kept.
        DataError: the file cannot be written.
    """
    if not evaluation.pictures:
        raise ConfigError("no pictures were kept for the figure")
    columns = list(evaluation.pictures.items())
    rows = len(columns[0][1])
    figure = _figure(2 * len(columns), 2 * rows + 0.3)
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, pictures) in enumerate(columns):
        for row, picture in enumerate(pictures):
            axes = grid[row][column]
            axes.imshow(picture.permute(1, 2, 0).clamp(0, 1).numpy())
            axes.set_axis_off()
        grid[0][column].set_title(name, fontsize="medium")
    _save(figure, path)


def draw_ab_over_time(evaluation: FilmEvaluation, path: Path) -> None:
    """a and b at the points followed, each rendering and the truth, frame by frame.

    Raises:
        ConfigError: matplotlib is not installed.
        DataError: the file cannot be written.
    """
    figure = _figure(11, 1.7 * len(evaluation.points) + 0.6)
    grid = figure.subplots(len(evaluation.points), 2, sharex=True, squeeze=False)
    for row, (x, y) in enumerate(evaluation.points):
        for channel, axes in enumerate(grid[row]):
            for name, ab in evaluation.ab.items():
                if name != GREY:
                    axes.plot(ab[:, row, channel], label=name, **_line(name))
            axes.set_ylabel(f"{'ab'[channel]}* at {x:g}, {y:g}", fontsize="small")
            axes.grid(alpha=0.3)
    grid[0][1].legend(fontsize="small")
    for axes in grid[-1]:
        axes.set_xlabel("frame")
    _save(figure, path)


def draw_film_measures(evaluation: FilmEvaluation, path: Path) -> None:
    """Warping error of a and b, and colourfulness, of each frame.

    Raises:
        ConfigError: matplotlib is not installed.
        DataError: the file cannot be written.
    """
    figure = _figure(11, 5)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name, scores in evaluation.scores.items():
        if name != GREY:
            upper.plot(scores.warping_ab, label=name, **_line(name))
            lower.plot(scores.colourfulness, label=name, **_line(name))
    upper.set_yscale("symlog", linthresh=0.1)
    upper.set_ylabel("warping error of ab")
    lower.set_ylabel("colourfulness")
    lower.set_xlabel("frame")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    upper.legend(fontsize="small")
    _save(figure, path)


def _line(name: str) -> dict[str, Any]:
    return {"color": "black", "linewidth": 1.6} if name == TRUTH else {"linewidth": 1.1}


def _figure(width_in: float, height_in: float):  # type: ignore[no-untyped-def]  # matplotlib is optional
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("figures need matplotlib: pip install 'archivecolor[train]'") from error
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure, path: Path) -> None:  # type: ignore[no-untyped-def]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        figure.savefig(partial, format="png", dpi=130)
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
