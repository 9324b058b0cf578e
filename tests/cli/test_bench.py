"""``archivecolor bench``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from archivecolor.cli import main
from archivecolor.colorize.bench import BenchResult
from tests.clips import make_clip


def test_figures_of_a_made_film_hang_together(use_tiny_weights: Path) -> None:
    result = CliRunner().invoke(main, ["bench", "--seconds", "2", "--size", "96x64", "--device", "cpu", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert (figures["width_px"], figures["height_px"], figures["frames"]) == (96, 64, 50)
    assert set(figures["stages"]) == {"decode", "to-device", "network", "temporal", "recombine", "encode"}
    assert all(speed > 0 for speed in figures["stages"].values())
    network, transcode = figures["stages"]["network"], figures["transcode"]
    assert figures["bound"] == pytest.approx(1 / (1 / network + 1 / transcode))
    assert figures["efficiency"] == pytest.approx(figures["pipeline"] / figures["bound"])
    assert 0 < figures["carried"] <= 25
    assert figures["stages"][figures["limiting_stage"]] == min(figures["stages"].values())


def test_a_film_of_ones_own_in_a_table(use_tiny_weights: Path, tmp_path: Path) -> None:
    film = make_clip(tmp_path / "film.mkv", frames=40).path
    result = CliRunner().invoke(main, ["bench", str(film), "--container", "mkv", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    for words in ("network alone", "plain transcode", "whole pipeline", "efficiency", "a 90-minute film"):
        assert words in result.stdout
    assert list(tmp_path.iterdir()) == [film]


@pytest.mark.parametrize("size", ["640", "641x480", "8x8"])
def test_a_wrong_size_is_wrong_usage(size: str) -> None:
    assert CliRunner().invoke(main, ["bench", "--size", size]).exit_code == 2


def test_a_network_with_a_device_of_its_own_is_bound_by_the_slower_part() -> None:
    stages = {"decode": 400.0, "to-device": 900.0, "network": 300.0, "recombine": 800.0, "encode": 250.0}
    result = BenchResult("f.mp4", (640, 480), "cuda", "bf16", 100, 25.0, stages, 200.0, 150.0, 2.0)
    assert result.bound == 200 and result.efficiency == 0.75 and result.limiting == "encode"
    assert result.seconds_for(6) == 3.0
