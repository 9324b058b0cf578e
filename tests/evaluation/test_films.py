"""A clip made grey, colourised, and held against itself."""

from __future__ import annotations

import json
import warnings
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from archivecolor.cli import main
from archivecolor.colorize.engine import Engine
from archivecolor.config import ColorizeConfig
from archivecolor.errors import FilmDecodeError, FilmOpenError
from archivecolor.evaluation.films import FRAME_BY_FRAME, STEADIED, FilmEvaluation, evaluate_film
from archivecolor.film import OutputSettings, read_rgb
from tests.clips import make_clip

SIZE = (96, 64)
CUT = 9


def scenery(seed: int) -> np.ndarray:
    """(H, W, 3) R'G'B' 0..255 of soft colours, larger than a frame."""
    rng = np.random.default_rng(seed)
    shapes = cv2.GaussianBlur(rng.random((SIZE[1] + 40, SIZE[0] + 40, 3)), (0, 0), 3)
    shapes = (shapes - shapes.min()) / (shapes.max() - shapes.min())
    return (30 + 200 * shapes).astype(np.uint8)


def write_rgb(path: Path, frames: list[np.ndarray], matrix: int = 1, pix_fmt: str = "yuv444p") -> Path:
    """A lossless clip in colour of R'G'B' frames, tagged with an H.273 matrix."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *frames[0].shape[1::-1], pix_fmt
        stream.codec_context.colorspace = matrix
        for number, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame = frame.reformat(format=pix_fmt, dst_colorspace=matrix)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two moving scenes in colour, the cut between them after frame 8."""
    scenes = scenery(1), scenery(2)
    frames = [scenes[n >= CUT][n : n + SIZE[1], 2 * (n % CUT) :][:, : SIZE[0]] for n in range(2 * CUT)]
    return write_rgb(tmp_path_factory.mktemp("films") / "clip.mkv", frames)


@pytest.fixture(scope="module")
def evaluation(clip: Path, tiny_weights: Path) -> FilmEvaluation:
    config = ColorizeConfig(weights=str(tiny_weights), device="cpu", render_size_px=128)
    return evaluate_film(clip, Engine(config), config)


@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p"])
@pytest.mark.parametrize("matrix", [1, 5, 9])
def test_colours_are_read_as_they_were_written(tmp_path: Path, matrix: int, pix_fmt: str) -> None:
    colours = np.array([[200, 60, 40], [30, 160, 90], [70, 80, 220], [128, 128, 128]], np.uint8)
    frame = np.repeat(np.repeat(colours[None], 32, axis=0), 16, axis=1)
    [shown] = read_rgb(write_rgb(tmp_path / "colours.mkv", [frame], matrix, pix_fmt), 256)
    assert shown.shape == frame.shape
    error = np.abs(shown / 257 - frame).reshape(32, 4, 16, 3)
    assert error[:, :, 4:-4].max() < 3  # chroma of two pixels may be mixed at the edges


def test_frames_are_averaged_down_and_cut(clip: Path) -> None:
    frames = list(read_rgb(clip, 48, start_s=0.2, end_s=0.4))
    assert len(frames) == 5 and frames[0].shape == (32, 48, 3)
    [whole] = list(read_rgb(clip, 96, start_s=0.2, end_s=0.24))
    blocks = whole.reshape(32, 2, 48, 2, 3).mean(axis=(1, 3))
    assert np.abs(frames[0] / 257 - blocks / 257).max() < 3


def test_a_film_that_is_none(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(FilmOpenError):
        next(read_rgb(tmp_path / "missing.mkv", 64))
    with pytest.raises(FilmDecodeError, match="no frame of it"):
        next(read_rgb(clip, 64, start_s=100))


def test_rows_bound_what_the_figures_mean(evaluation: FilmEvaluation) -> None:
    rows = {row.method: row for row in evaluation.rows}
    assert list(rows) == ["grey", FRAME_BY_FRAME, STEADIED, "truth"]
    assert (evaluation.frames, evaluation.shots, evaluation.size_px) == (2 * CUT, 2, SIZE)
    grey, raw, steadied, truth = rows.values()
    assert grey.warping_error_ab == pytest.approx(0, abs=1e-4) and grey.colourfulness == pytest.approx(0, abs=1e-3)
    assert truth.l1 == 0 and truth.against_truth == 1
    assert grey.l1 is not None and grey.l1 > 5
    assert raw.warping_error_ab is not None and steadied.warping_error_ab is not None
    assert steadied.warping_error_ab < raw.warping_error_ab
    assert steadied.against_truth == pytest.approx(steadied.warping_error_ab / (truth.warping_error_ab or 0))
    assert steadied.colourfulness == pytest.approx(raw.colourfulness, rel=0.1)
    assert truth.colourfulness is not None and truth.colourfulness > 30


def test_every_frame_has_its_figures(evaluation: FilmEvaluation) -> None:
    record = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert set(record["per_frame"]) == {"grey", FRAME_BY_FRAME, STEADIED, "truth"}
    for figures in record["per_frame"].values():
        errors = figures["warping_error_ab"]
        assert [n for n, error in enumerate(errors) if error is None] == [0, CUT]
        assert np.array(figures["ab"]).shape == (2 * CUT, 5, 2)
    assert np.abs(record["per_frame"]["grey"]["ab"]).max() < 0.1


def test_the_truth_is_followed_where_it_is(clip: Path, tiny_weights: Path) -> None:
    config = ColorizeConfig(weights=str(tiny_weights), device="cpu", render_size_px=128, end_s=0.2, temporal=0)
    result = evaluate_film(clip, Engine(config), config, points=((0.5, 0.5),))
    [first, *_] = read_rgb(clip, 256)
    middle = first[30:35, 46:51].mean(axis=(0, 1)) / 65535
    lab = cv2.cvtColor(middle[None, None].astype(np.float32), cv2.COLOR_RGB2Lab)[0, 0]
    assert result.ab["truth"].shape == (5, 1, 2)
    assert result.ab["truth"][0, 0] == pytest.approx(lab[1:], abs=1.5)
    assert [row.method for row in result.rows] == ["grey", FRAME_BY_FRAME, "truth"]


def test_a_film_is_measured_as_it_is_encoded(evaluation: FilmEvaluation, clip: Path, tiny_weights: Path) -> None:
    config = ColorizeConfig(weights=str(tiny_weights), device="cpu", render_size_px=128)
    coarse = evaluate_film(clip, Engine(config), config, OutputSettings(codec="h264", crf=45))
    for lossless, lossy in zip(evaluation.rows, coarse.rows, strict=True):
        assert (lossless.colourfulness == lossy.colourfulness) == (lossless.method in ("grey", "truth"))


def test_a_grey_film_has_no_truth(tmp_path: Path, use_tiny_weights: Path) -> None:
    film = make_clip(tmp_path / "grey.mkv", frames=8).path
    done = CliRunner().invoke(main, ["evaluate", "--film", str(film), "--render-size", "128", "--json"])
    assert done.exit_code == 0, done.output
    [record] = json.loads(done.stdout)["films"]
    assert [row["method"] for row in record["rows"]] == ["grey", FRAME_BY_FRAME, STEADIED]
    assert all(row["l1"] is None and row["against_truth"] is None for row in record["rows"])
    assert record["rows"][1]["warping_error_ab"] is not None


def test_the_command_writes_tables_and_figures(clip: Path, tmp_path: Path, use_tiny_weights: Path) -> None:
    pytest.importorskip("matplotlib")
    command = ["evaluate", "--film", str(clip), "--render-size", "128", "--out", str(tmp_path), "--end", "0.3"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        done = CliRunner().invoke(main, [*command, "--point", "0.1", "0.9"])
    assert done.exit_code == 0, done.output
    for words in ("clip.mkv", "warping error ab", "frame by frame", "steadied", "truth", "8 frames, 1 shot"):
        assert words in done.stdout
    for name in ("ab_over_time.png", "measures.png"):
        drawn = cv2.imread(str(tmp_path / "clip" / name))
        assert drawn is not None and drawn.std() > 5
    assert json.loads((tmp_path / "clip/film.json").read_text())["points"] == [[0.1, 0.9]]
    assert "| steadied |" in (tmp_path / "clip/film.md").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--film", "clip.mkv", "--data", "photos"],
        ["--film", "clip.mkv", "--vgg", "download"],
        ["weights.safetensors", "--data", "photos", "--temporal", "off"],
        ["weights.safetensors", "--data", "photos", "--precision", "int8"],
        ["weights.safetensors"],
        ["--film"],
    ],
)
def test_options_of_the_other_kind_are_wrong_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, ["evaluate", *arguments]).exit_code == 2
