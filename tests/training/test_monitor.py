"""Collapse and divergence are noticed, and healthy training is left alone."""

from __future__ import annotations

import math

import pytest

from archivecolor.config import TrainConfig
from archivecolor.training.monitor import PATIENCE_LOGS, CollapseWatch, first_not_finite


def observe(watch: CollapseWatch, times: int, d_real: float, d_fake: float, g: float) -> list[str]:
    scales = 3
    values = {"l1": 0.1, "d_real": d_real * scales, "d_fake": d_fake * scales, "g_adversarial": g * scales}
    return [warning for _ in range(times) if (warning := watch.observe(values))]


@pytest.mark.parametrize(
    ("gan_loss", "won", "blind", "healthy"),
    [
        ("bce", (0.001, 0.002, 7.0), (math.log(2),) * 3, (0.5, 0.6, 0.9)),
        ("lsgan", (0.001, 0.002, 0.99), (0.25,) * 3, (0.2, 0.22, 0.4)),
    ],
)
def test_collapse(gan_loss: str, won: tuple[float, ...], blind: tuple[float, ...], healthy: tuple[float, ...]) -> None:
    config = TrainConfig(gan_loss=gan_loss)  # type: ignore[arg-type]
    assert observe(CollapseWatch(config), 5 * PATIENCE_LOGS, *healthy) == []
    assert observe(CollapseWatch(config), PATIENCE_LOGS - 1, *won) == []
    (warning,) = observe(CollapseWatch(config), 3 * PATIENCE_LOGS, *won)
    assert "learns nothing" in warning and "--lr-d" in warning
    (warning,) = observe(CollapseWatch(config), 3 * PATIENCE_LOGS, *blind)
    assert "collapsed" in warning

    watch = CollapseWatch(config)
    said = (
        observe(watch, PATIENCE_LOGS - 1, *won) + observe(watch, 1, *healthy) + observe(watch, PATIENCE_LOGS - 1, *won)
    )
    assert said == [], "it has to last"


def test_warm_up_is_not_watched() -> None:
    watch = CollapseWatch(TrainConfig())
    assert all(watch.observe({"l1": 0.1}) is None for _ in range(50))


def test_first_not_finite() -> None:
    assert first_not_finite({"l1": 1.0, "d_real": math.nan, "d_fake": math.inf}) == "d_real"
    assert first_not_finite({"l1": 1.0, "d_fake": -math.inf}) == "d_fake"
    assert first_not_finite({"l1": 1.0}) is None
