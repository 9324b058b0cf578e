"""The paper's Table I for any set of generators, with the rows that bound it: grey and truth."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from archivecolor import color
from archivecolor.errors import ConfigError
from archivecolor.evaluation.metrics import Scores

GREY, TRUTH = "grey", "truth"

Perceptual = Callable[[Tensor, Tensor], Tensor]
Look = Callable[[Tensor, int], Tensor]
"""Lightness (N, 1, S, S), 0..100, of (N, 3, S, S) R'G'B' 0..1 and the number of photographs before them."""


@dataclass(frozen=True)
class Row:
    """One line of the table; None where a figure does not exist (PSNR of the truth) or could not be had (L_perc)."""

    method: str
    l1: float
    psnr_db: float | None
    l_perc: float | None
    colourfulness: float
    colourfulness_absolute: float
    colourfulness_ratio: float | None
    ab_intersection: float
    psnr_rgb_db: float | None


COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("l1", "L1", 2),
    ("psnr_db", "PSNR [dB]", 2),
    ("l_perc", "L_perc", 2),
    ("colourfulness", "colourfulness", 2),
    ("colourfulness_absolute", "(absolute)", 2),
    ("colourfulness_ratio", "ratio to truth", 3),
    ("ab_intersection", "ab intersection", 3),
    ("psnr_rgb_db", "RGB PSNR [dB]", 2),
)
"""Field of `Row`, heading, decimals."""


@dataclass
class Evaluation:
    """Scores of every method on the same photographs, their ab histograms, and a few pictures of each.

    ``histograms`` are (2, 219) mean counts an image; ``pictures`` (n, 3, S, S) R'G'B' 0..1, both by method, in the
    order grey, each method, truth.
    """

    images: int
    rows: list[Row]
    histograms: dict[str, Tensor]
    pictures: dict[str, Tensor] = field(default_factory=dict)
    note: str = ""

    def cells(self, row: Row) -> list[str]:
        """A row's figures as text, a dash where there is none."""
        values = [(getattr(row, name), decimals) for name, _, decimals in COLUMNS]
        return ["–" if value is None else f"{value:.{decimals}f}" for value, decimals in values]

    def to_json(self) -> str:
        """All figures, unrounded."""
        record = {"images": self.images, "rows": [asdict(row) for row in self.rows], "note": self.note}
        return json.dumps(record, indent=2, allow_nan=False)

    def to_markdown(self) -> str:
        """A table for a README."""
        head = ["method", *(heading for _, heading, _ in COLUMNS)]
        lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * len(COLUMNS) + "|"]
        lines += ["| " + " | ".join([row.method, *self.cells(row)]) + " |" for row in self.rows]
        lines += ["", f"{self.images} photographs." + (f" {self.note}" if self.note else "")]
        return "\n".join(lines)


@torch.inference_mode()
def evaluate(
    batches: Iterable[Tensor],
    methods: Mapping[str, nn.Module],
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    perceptual: Perceptual | None = None,
    look: Look | None = None,
    keep_pictures: int = 6,
    on_progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score generators on photographs (paper IV-C; DESIGN section 4).

    Args:
        batches: (N, S, S, 3) uint8 R'G'B'.
        methods: generators by name, each from ``l_norm`` (N, 1, S, S) to ``ab_norm`` (N, 2, S, S), on ``device``.
        dtype: what the generators compute in; measures are always float32 and more.
        perceptual: L_perc, left out where None.
        look: what the generators see of the photographs instead of their lightness; measures and pictures go by that.
        keep_pictures: so many of the first photographs are kept, for the figure.
        on_progress: called with the photographs done.

    Raises:
        ConfigError: a method is called ``grey`` or ``truth``, or there is no photograph.
    """
    if taken := {GREY, TRUTH} & set(methods):
        raise ConfigError(f"no method can be called {taken.pop()!r}: that is a row of its own")
    names = [GREY, *methods, TRUTH]
    scores = {name: Scores() for name in names}
    pictures: dict[str, list[Tensor]] = {name: [] for name in names}
    done = 0
    for photos in batches:
        rgb = photos.to(device).permute(0, 3, 1, 2).float() / 255
        true_lab = color.rgb_to_lab(rgb)
        L, true_ab = true_lab[:, :1], true_lab[:, 1:]
        l_norm = color.normalise_l(L if look is None else look(rgb, done)).to(dtype)
        chroma = {GREY: torch.zeros_like(true_ab), TRUTH: true_ab}
        for name, generator in methods.items():
            chroma[name] = color.denormalise_ab(generator(l_norm).float())
        for name in names:
            lab = torch.cat([L, chroma[name]], dim=1)
            scores[name].update(lab, true_lab, perceptual)
            if done < keep_pictures:
                pictures[name].append(color.lab_to_rgb(lab[: keep_pictures - done]).cpu())
        done += photos.shape[0]
        if on_progress:
            on_progress(done)
    if not done:
        raise ConfigError("there is no photograph to evaluate on")
    return Evaluation(
        done,
        [_row(name, scores[name].summary()) for name in names],
        {name: scores[name].histogram / done for name in names},
        {name: torch.cat(several) for name, several in pictures.items() if several},
    )


def _row(name: str, summary: Mapping[str, float]) -> Row:
    ratio = summary["colourfulness_ratio"]
    exact = name == TRUTH
    return Row(
        method=name,
        l1=summary["l1"],
        psnr_db=None if exact else summary["psnr_db"],
        l_perc=summary.get("l_perc"),
        colourfulness=summary["colourfulness"],
        colourfulness_absolute=summary["colourfulness_absolute"],
        colourfulness_ratio=None if math.isnan(ratio) else ratio,
        ab_intersection=summary["ab_intersection"],
        psnr_rgb_db=None if exact else summary["psnr_rgb_db"],
    )
