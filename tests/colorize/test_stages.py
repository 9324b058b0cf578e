"""Which frames the network colours, and which take the colour of their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from archivecolor.colorize.engine import Engine
from archivecolor.colorize.pipeline import colorize_film
from archivecolor.colorize.stages import Steadying
from archivecolor.config import ColorizeConfig
from archivecolor.film import LumaFrame, OutputSettings
from tests.colorize.moving import make_shots
from tests.colorize.test_segments import pictures


def at(number: int) -> LumaFrame:
    return LumaFrame(np.zeros((2, 2), np.uint8), 3600 * (number + 7), Fraction(1, 90000), None, False)


@pytest.mark.parametrize("cut", [0, 1, 2, 5, 8])
def test_frames_are_chosen_the_same_wherever_the_work_begins(cut: int) -> None:
    steadying = Steadying(0.9, spared_at=Fraction(25))
    frames, explained = [at(n) for n in range(20)], [n not in (0, 6, 13) for n in range(20)]
    whole = steadying.wanted(None, frames, explained)
    assert [n for n in range(20) if not whole[n]] == [2, 4, 8, 10, 12, 14, 16, 18]
    before = frames[cut - 1] if cut else None
    assert steadying.wanted(before, frames[cut:], explained[cut:]) == whole[cut:]


def test_all_frames_are_wanted_where_none_are_spared() -> None:
    assert Steadying(0.9).wanted(at(0), [at(1), at(2)], [True, True]) == [True, True]


@pytest.fixture
def coloured(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, int]]:
    """Colours a film and gives the frames that the network was shown and that the report calls carried."""

    def colour(source: Path, output: Path, **options: object) -> tuple[int, int]:
        config = ColorizeConfig(weights=str(tiny_weights), device="cpu", precision="fp32", **options)  # type: ignore[arg-type]
        engine, shown = Engine(config), []
        ask = engine._ask

        def counted(l_norm: torch.Tensor) -> torch.Tensor:
            shown.append(len(l_norm))
            return ask(l_norm)

        monkeypatch.setattr(engine, "_ask", counted)
        report = colorize_film(source, output, engine, config, OutputSettings("ffv1"))
        assert report.frames_written == len(pictures(output))
        return sum(shown), report.carried_frames

    return colour


def test_the_network_is_spared_half_of_what_moves_steadily(tmp_path: Path, coloured) -> None:
    source = make_shots(tmp_path / "a.mkv", [30, 30])
    assert coloured(source, tmp_path / "fewer.mkv") == (30, 30)
    assert coloured(source, tmp_path / "all.mkv", network_frames="all") == (60, 0)
    assert coloured(source, tmp_path / "each.mkv", temporal=0.0) == (60, 0)
    fewer, every = (np.stack(pictures(tmp_path / name)).astype(int) for name in ("fewer.mkv", "all.mkv"))
    assert np.abs(fewer - every).mean() < 0.5


def test_a_shot_that_begins_on_a_spared_frame_has_its_own_colour(tmp_path: Path, coloured) -> None:
    source = make_shots(tmp_path / "a.mkv", [9, 8, 11])
    assert coloured(source, tmp_path / "b.mkv") == (16, 12)
