"""The terms of the paper's objective (eq. 3 to 6), and one beside it.

The adversarial terms take a list of patch logits, one tensor a discriminator (III-D), and sum over the
discriminators what is averaged over patches.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GanLoss = Literal["bce", "lsgan"]

_HUES: Final = 8
_LIGHTNESS_SLOPES: Final = (-0.35, 0.0, 0.35)


def _towards(logits: list[Tensor], real: bool, kind: GanLoss) -> Tensor:
    """Summed over scales, the loss of logits that ought to say ``real``."""
    terms = []
    for scale in logits:
        scale = scale.float()
        if kind == "bce":
            terms.append(F.softplus(-scale if real else scale).mean())
        else:
            terms.append((scale - float(real)).square().mean())
    return torch.stack(terms).sum()


def discriminator_loss(real: list[Tensor], fake: list[Tensor], kind: GanLoss = "bce") -> tuple[Tensor, Tensor]:
    """The discriminators' terms on true and on generated colour (eq. 4, its negative), each at full weight.

    Args:
        real: logits for photographs, one (N, 1, h, w) tensor a scale.
        fake: logits for the (detached) generator's colours.
        kind: ``"bce"``, the paper's log loss, or ``"lsgan"``, least squares, as in its authors' released code.
    """
    return _towards(real, True, kind), _towards(fake, False, kind)


def adversarial_loss(fake: list[Tensor], kind: GanLoss = "bce") -> Tensor:
    """The generator's non-saturating term: -log D(G(x)) summed over scales (eq. 5, III-A)."""
    return _towards(fake, True, kind)


def l1_loss(ab_norm: Tensor, true_ab_norm: Tensor) -> Tensor:
    """Mean absolute difference over normalised a and b (the second term of eq. 5, without lambda)."""
    return (ab_norm.float() - true_ab_norm.float()).abs().mean()


def distribution_loss(l_norm: Tensor, ab_norm: Tensor, true_ab_norm: Tensor) -> Tensor:
    """How far the colours of a batch, wherever they are in it, are from the true ones (not in the paper).

    Where L1 is unsure of a colour it settles for grey; this term has the batch as a whole hold as much of each colour
    as the photographs do. It is a sliced Wasserstein distance (Bonneel et al. 2015) over fixed directions of (L, a, b),
    so that dark and bright colours are told apart, after averaging over 2x2 pixels, so that no pattern of single
    pixels helps. Of several processes each takes its own share of the batch.

    Args:
        l_norm: (N, 1, H, W) lightness in -1..1.
        ab_norm: (N, 2, H, W) colours in -1..1.
        true_ab_norm: the photographs' own.
    """
    angles = torch.arange(_HUES, device=ab_norm.device) * (math.pi / _HUES)
    hues = torch.stack([angles.cos(), angles.sin()], 1)
    lightness = F.avg_pool2d(l_norm.float(), 2).flatten()

    def sorted_slices(ab: Tensor) -> Tensor:
        along = hues @ F.avg_pool2d(ab.float(), 2).permute(1, 0, 2, 3).flatten(1)
        return torch.cat([along + slope * lightness for slope in _LIGHTNESS_SLOPES]).sort(1).values

    return (sorted_slices(ab_norm) - sorted_slices(true_ab_norm)).abs().mean()
