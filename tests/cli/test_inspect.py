"""``archivecolor inspect``."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from archivecolor.cli import main
from tests.clips import make_clip


def inspect(*arguments: object, exit_code: int = 0) -> dict[str, dict[str, object]]:
    result = CliRunner().invoke(main, ["inspect", *map(str, arguments), "--json"])
    assert result.exit_code == exit_code, result.output
    sections: dict[str, dict[str, object]] = json.loads(result.stdout)
    return sections


def test_a_film_and_the_plan_for_it(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "film.mp4", frames=10, sound="aac", metadata={"title": "Früh"})
    sections = inspect(clip.path)
    assert sections["Time"]["frames"] == 10
    assert sections["Picture"]["black_and_white"] is True
    assert "aac" in str(sections["Streams"]["1 audio"])
    assert sections["Tags"]["title"] == "Früh"
    assert "libx264" in str(sections["Colorize would"]["encode"])
    assert sections["Colorize would"]["copy"] == ["1 audio aac"]


def test_colour_is_noticed(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "film.mp4", frames=5, neutral=False)
    assert inspect(clip.path)["Picture"]["black_and_white"] is False


def test_a_plan_that_cannot_work_is_told(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "film.mp4", frames=5)
    sections = inspect(clip.path, "-o", tmp_path / "out.webm", "--codec", "prores", exit_code=1)
    assert ".mkv" in str(sections["Colorize would"]["fail"])
    assert "source itself" in str(inspect(clip.path, "-o", clip.path, exit_code=1)["Colorize would"]["fail"])


def test_an_output_folder_is_planned_as_colorize_does(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "film.avi", frames=5)
    (tmp_path / "out").mkdir()
    plan = inspect(clip.path, "-o", tmp_path / "out")["Colorize would"]
    assert plan["write"] == str(tmp_path / "out" / "film.mkv") and "libx264" in str(plan["encode"])


def test_times_are_short(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "film.mkv", frames=7, rate=Fraction(24000, 1001))
    assert len(str(inspect(clip.path)["Time"]["duration_s"])) <= 8


def test_a_still(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), np.zeros((30, 40), np.uint16))
    assert inspect(tmp_path / "a.tif")["Still"]["bit_depth"] == 16


def test_a_readable_table(tmp_path: Path) -> None:
    folder = tmp_path / ("a long name" * 8)
    folder.mkdir(parents=True)
    clip = make_clip(folder / "[film].mp4", frames=5)
    result = CliRunner().invoke(main, ["inspect", str(clip.path)])
    assert "width px" in result.stdout and "Colorize would" in result.stdout and str(clip.path) in result.stdout


def test_a_missing_film(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "none.mp4")])
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and "none.mp4" in result.stderr


@pytest.mark.parametrize("command", [["inspect"], ["colorize", "-o", "out.mp4"]])
def test_an_address_in_the_network_is_no_missing_file(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "https://example.org/film.mp4"])
    assert result.exit_code == 1
    assert result.stderr == (
        "error: https://example.org/film.mp4: films are not read over the network; download it first\n"
    )
