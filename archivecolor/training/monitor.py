"""What goes wrong in adversarial training, noticed: losses that are no numbers, discriminators that collapse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from archivecolor.config import TrainConfig
from archivecolor.errors import ArchiveColorError

PATIENCE_LOGS = 10
"""So many logged values in a row have to look wrong before a warning."""

_LN2 = math.log(2)


class DivergedError(ArchiveColorError):
    """A loss or a weight is no longer a finite number; nothing was saved since it was."""

    def __init__(self, run: Path, step: int, name: str, saved_step: int | None) -> None:
        remedy = "a new run with --precision fp32 or a lower --lr-g and --lr-d may get past it"
        if saved_step is not None:
            remedy = f"--resume goes on from the checkpoint of step {saved_step}, before it happened; " + remedy
        super().__init__(f"{run}: {name} is no longer a finite number at step {step}; {remedy}")
        self.step, self.name = step, name


def first_not_finite(values: Mapping[str, float]) -> str | None:
    """Name of the first value that is infinite or not a number."""
    return next((name for name, value in values.items() if not math.isfinite(value)), None)


class CollapseWatch:
    """Notices that the game between generator and discriminators is over, as in the paper's Fig. 3 for BN (IV-C).

    Two ends are told apart, per discriminator scale: the discriminators tell every patch and the generator's term is
    large and no longer informs it; or they say the same of true and generated colour, and no longer inform it either.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._log_loss = config.gan_loss == "bce"
        self._scales = config.discriminator.scales
        self._won = self._blind = 0

    def observe(self, values: Mapping[str, float]) -> str | None:
        """Take one interval's mean loss terms; returns a warning once when they have looked wrong for long enough."""
        if "g_adversarial" not in values:
            return None
        d_real, d_fake, g = (values[name] / self._scales for name in ("d_real", "d_fake", "g_adversarial"))
        if self._log_loss:
            won = d_real + d_fake < 0.05 and g > 4.0
            blind = max(abs(d_real - _LN2), abs(d_fake - _LN2), abs(g - _LN2)) < 0.002
        else:
            won = d_real + d_fake < 0.01 and g > 0.9
            blind = max(abs(d_real - 0.25), abs(d_fake - 0.25), abs(g - 0.25)) < 0.001
        self._won = self._won + 1 if won else 0
        self._blind = self._blind + 1 if blind else 0
        if self._won == PATIENCE_LOGS:
            return (
                "the discriminators tell every patch apart and the generator learns nothing from them any more "
                f"(d_real + d_fake {d_real + d_fake:.3g}, g_adversarial {g:.3g} a scale): consider a lower --lr-d, "
                "--gan-loss lsgan or a preset with spectral norm"
            )
        if self._blind == PATIENCE_LOGS:
            return (
                "the discriminators have collapsed: they say the same of true and of generated colour "
                f"(d_real {d_real:.3g}, d_fake {d_fake:.3g} a scale): consider a higher --lr-d or a lower --lr-g"
            )
        return None
