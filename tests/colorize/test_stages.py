"""Which frames the network colours, and which take the colour of their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from archivecolor.colorize.engine import Engine
from archivecolor.colorize.parts import steadying_of
from archivecolor.colorize.pipeline import colorize_film
from archivecolor.colorize.stages import Steadying
from archivecolor.config import ColorizeConfig
from archivecolor.film import LumaFrame, OutputSettings, probe
from tests.clips import luma_frame
from tests.colorize.moving import SIDE_PX, make_shots, moved, texture
from tests.colorize.test_segments import pictures


def at(number: int) -> LumaFrame:
    return LumaFrame(np.zeros((2, 2), np.uint8), 3600 * (number + 7), Fraction(1, 90000), None, False)


@pytest.mark.parametrize("cut", [0, 1, 2, 5, 8])
def test_frames_are_chosen_the_same_wherever_the_work_begins(cut: int) -> None:
    steadying = Steadying(0.9, sparing_fps=Fraction(25))
    frames, explained = [at(n) for n in range(20)], [n not in (0, 6, 13) for n in range(20)]
    whole = steadying.wanted(None, frames, explained)
    assert [n for n in range(20) if not whole[n]] == [2, 4, 8, 10, 12, 14, 16, 18]
    before = frames[cut - 1] if cut else None
    assert steadying.wanted(before, frames[cut:], explained[cut:]) == whole[cut:]


def test_all_frames_are_wanted_where_none_are_spared() -> None:
    assert Steadying(0.9).wanted(at(0), [at(1), at(2)], [True, True]) == [True, True]


def test_no_frame_is_spared_where_a_variable_rate_is_dense() -> None:
    frames = [LumaFrame(np.zeros((2, 2), np.uint8), pts, Fraction(1, 1000), None, False) for pts in range(0, 2000, 20)]
    assert all(Steadying(0.9, sparing_fps=Fraction(26, 10)).wanted(None, frames, [True] * 100))


@pytest.mark.parametrize(
    ("asked", "temporal", "spares"),
    [("auto", 0.9, True), ("auto", 0.5, False), ("fewer", 0.5, True), ("fewer", 0.0, False), ("all", 0.9, False)],
)
def test_frames_are_spared_where_colour_is_averaged_over_many(
    tmp_path: Path, tiny_weights: Path, asked: Any, temporal: float, spares: bool
) -> None:
    config = ColorizeConfig(weights=str(tiny_weights), device="cpu", network_frames=asked, temporal=temporal)
    info = probe(make_shots(tmp_path / "a.mkv", [3]))
    assert steadying_of(info, config, Engine(config)).sparing_fps == (25 if spares else None)


@pytest.fixture
def coloured(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, int]]:
    """Colours a film and gives the frames that the network was shown and that the report calls carried."""

    def colour(source: Path, output: Path, **options: object) -> tuple[int, int]:
        config = ColorizeConfig(weights=str(tiny_weights), device="cpu", precision="fp32", **options)  # type: ignore[arg-type]
        engine, shown = Engine(config), []
        ask = engine._answer

        def counted(l_norm: torch.Tensor) -> torch.Tensor:
            shown.append(len(l_norm))
            return ask(l_norm)

        monkeypatch.setattr(engine, "_answer", counted)
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
    assert coloured(source, tmp_path / "fewer.mkv") == (16, 12)
    assert coloured(source, tmp_path / "all.mkv", network_frames="all") == (28, 0)
    fewer, every = (np.stack(pictures(tmp_path / name)).astype(int) for name in ("fewer.mkv", "all.mkv"))
    for first in (9, 17):
        assert np.abs(fewer - every)[first : first + 2].mean() < 0.5


@pytest.mark.parametrize("options", [{}, {"shot_consistency": True}])
def test_which_frames_are_spared_does_not_depend_on_the_batches(tmp_path: Path, coloured, options) -> None:
    """Of a film with repeated frames, as of pull-down."""
    source = tmp_path / "a.mkv"
    steps = [n // 5 * 2 + (0, 0, 1, 1, 1)[n % 5] for n in range(40)]
    with av.open(str(source), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width = stream.height = SIDE_PX
        for step in steps:
            luma = 16 + 2.19 * moved(texture(1), step, 0).clip(0, 100)
            output.mux(stream.encode(luma_frame(luma.astype(np.uint8), "yuv420p")))
        output.mux(stream.encode(None))
    films = []
    for size in (4, 3, 1):
        coloured(source, tmp_path / f"{size}.mkv", batch_size=size, **options)
        films.append(np.stack(pictures(tmp_path / f"{size}.mkv")).astype(int))
    for other in films[1:]:  # float32 adds up in another order
        assert np.abs(films[0] - other).max() <= 1 and np.abs(films[0] - other).mean() < 1e-3
