"""The terms of the paper's objective (eq. 3 to 6).

The adversarial terms take a list of patch logits, one tensor a discriminator (III-D), and sum over the
discriminators what is averaged over patches.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GanLoss = Literal["bce", "lsgan"]


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
