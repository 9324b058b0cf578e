"""Learning curves of a run, from its metrics file (the paper's Fig. 3)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from archivecolor.config import TrainConfig
from archivecolor.training.checkpoints import writing

log = logging.getLogger(__name__)


def draw_curves(records: list[dict[str, Any]], path: Path, config: TrainConfig) -> bool:
    """Draw the generator's adversarial and L1 terms, the discriminators' terms and the validation scores as a PNG.

    Args:
        records: what `MetricsLog.read` returns.

    Returns:
        Whether it was drawn: matplotlib is optional, and a run without it goes on without curves.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        log.info("matplotlib is not installed (archivecolor[train]): no learning curves")
        return False

    def series(name: str, part: str | None = None) -> tuple[list[float], list[float]]:
        points = [(r["step"], (r.get(part) or {}) if part else r) for r in records]
        drawn = [(step * config.batch_size, values[name]) for step, values in points if values.get(name) is not None]
        return [x for x, _ in drawn], [y for _, y in drawn]

    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels: list[tuple[str, str, list[tuple[str, str, str | None]]]] = [
        ("Generator, adversarial term", f"{config.gan_loss}, summed over scales",
         [("g_adversarial", "generator", None)]),
        ("Generator, L1 term", "mean |difference|, normalised ab", [("l1", "training", None)]),
        ("Discriminators", f"{config.gan_loss}, summed over scales",
         [("d_real", "on true colour", None), ("d_fake", "on generated colour", None)]),
        ("Validation", "L1 in Lab units", [("l1", "L1 (Lab)", "validation")]),
    ]  # fmt: skip
    for axes, (title, unit, lines) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        for name, label, part in lines:
            # Validations are few, and a line through a single one would not be seen.
            axes.plot(*series(name, part), label=label, linewidth=1.2, marker="." if part else None)
        axes.set_title(title)
        axes.set_xlabel("photographs")
        axes.set_ylabel(unit)
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend()
        if title == "Validation":
            twin = axes.twinx()
            twin.plot(*series("colourfulness_ratio", "validation"), color="tab:orange", linewidth=1.2, marker=".")
            twin.set_ylabel("colourfulness / truth's", color="tab:orange")
    figure.suptitle(f"{config.preset}, {config.gan_loss}, L1 weight {config.l1_weight:g}")
    partial = path.with_suffix(".partial")
    with writing(path):
        figure.savefig(partial, format="png", dpi=110)
        partial.replace(path)
    return True
