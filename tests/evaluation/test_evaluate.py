"""Table I, Fig. 4 and Fig. 5, by library and by command."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from archivecolor import color
from archivecolor.cli import main
from archivecolor.config import GeneratorConfig, TrainConfig
from archivecolor.errors import ConfigError
from archivecolor.evaluation.table import evaluate
from archivecolor.networks import Generator
from archivecolor.training.checkpoints import checkpoints, load_checkpoint
from archivecolor.training.data import load_photos
from archivecolor.training.loop import train
from archivecolor.training.trainer import Trainer
from archivecolor.weights import save_generator
from tests.training.conftest import make_photo, write_photo

CPU = torch.device("cpu")


class Oracle(nn.Module):
    """Knows the true colours and returns a share of them."""

    def __init__(self, photos: torch.Tensor, share: float) -> None:
        super().__init__()
        lab = color.rgb_to_lab(photos.permute(0, 3, 1, 2).float() / 255)
        self.l_norm, self.ab_norm = color.normalise_l(lab[:, :1]), share * color.normalise_ab(lab[:, 1:])

    def forward(self, l_norm: torch.Tensor) -> torch.Tensor:
        known = [int((self.l_norm - x).abs().flatten(1).sum(1).argmin()) for x in l_norm]
        return self.ab_norm[known]


@pytest.fixture
def photos() -> torch.Tensor:
    return torch.from_numpy(np.stack([make_photo(i, 32, 32) for i in range(7)]))


def test_rows(photos: torch.Tensor) -> None:
    methods = {"exact": Oracle(photos, 1.0), "pale": Oracle(photos, 0.6)}
    result = evaluate(photos.split(3), methods, device=CPU, keep_pictures=4)
    rows = {row.method: row for row in result.rows}
    assert list(rows) == ["grey", "exact", "pale", "truth"] and result.images == 7

    grey, exact, pale, truth = rows.values()
    assert truth.l1 == 0 and truth.psnr_db is None and truth.colourfulness_ratio == 1
    assert truth.ab_intersection == pytest.approx(1)
    assert exact.l1 < 0.1 and exact.colourfulness_ratio == pytest.approx(1, abs=0.01)
    assert grey.colourfulness == pytest.approx(0, abs=0.1) and grey.colourfulness_ratio == pytest.approx(0, abs=0.01)
    lab = color.rgb_to_lab(photos.permute(0, 3, 1, 2).float() / 255)
    assert grey.l1 == pytest.approx(float(lab[:, 1:].abs().mean()), rel=0.02)
    assert truth.l1 <= exact.l1 < 0.5 * pale.l1 < pale.l1 < grey.l1
    assert pale.colourfulness_ratio == pytest.approx(0.6, abs=0.12)
    assert exact.psnr_db is not None and pale.psnr_db is not None and exact.psnr_db > pale.psnr_db + 10
    assert all(row.l_perc is None for row in result.rows)

    assert all(histogram.sum(1).tolist() == pytest.approx([1024, 1024]) for histogram in result.histograms.values())
    assert all(pictures.shape == (4, 3, 32, 32) for pictures in result.pictures.values())
    torch.testing.assert_close(result.pictures["truth"], photos[:4].permute(0, 3, 1, 2) / 255, atol=1e-3, rtol=0)


def test_what_the_networks_see_may_differ_from_what_they_are_held_against(photos: torch.Tensor) -> None:
    seen: list[int] = []

    def darker(rgb: torch.Tensor, done: int) -> torch.Tensor:
        seen.append(done)
        return color.rgb_to_lab(rgb)[:, :1] * 0.5

    class Lightness(nn.Module):
        def forward(self, l_norm: torch.Tensor) -> torch.Tensor:
            return (l_norm + 1).expand(-1, 2, -1, -1) * 0.2

    plain, dark = (evaluate(photos.split(3), {"L": Lightness()}, device=CPU, look=look) for look in (None, darker))
    assert seen == [0, 3, 6]
    assert dark.rows[1].colourfulness < 0.7 * plain.rows[1].colourfulness
    assert [dark.rows[n] for n in (0, 2)] == [plain.rows[n] for n in (0, 2)]
    torch.testing.assert_close(dark.pictures["truth"], plain.pictures["truth"])


def test_l_perc_is_the_mean_over_all_images(photos: torch.Tensor) -> None:
    def mean_red(rgb: torch.Tensor, true_rgb: torch.Tensor) -> torch.Tensor:
        return (rgb - true_rgb)[:, 0].abs().mean(dim=(1, 2))

    result = evaluate(photos.split(2), {"pale": Oracle(photos, 0.5)}, device=CPU, perceptual=mean_red)
    whole = evaluate([photos], {"pale": Oracle(photos, 0.5)}, device=CPU, perceptual=mean_red)
    assert result.rows[-1].l_perc == 0 and result.rows[1].l_perc is not None
    assert result.rows[1].l_perc == pytest.approx(whole.rows[1].l_perc) and result.rows[1].l_perc > 1


def test_reserved_names_and_nothing_to_evaluate(photos: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="grey"):
        evaluate([photos], {"grey": Oracle(photos, 0)}, device=CPU)
    with pytest.raises(ConfigError, match="no photograph"):
        evaluate([], {}, device=CPU)


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, a run of a few steps, and weights."""
    folder = tmp_path_factory.mktemp("evaluate")
    for i in range(8):
        write_photo(folder / "photos" / f"{i}.png", make_photo(i))
    photos = load_photos([folder / "photos"], 32, cache_dir=folder / "cache")
    config = TrainConfig(
        preset="bn-sn",
        size_px=32,
        batch_size=4,
        images=16,
        ema=0.5,
        generator_widths=(8, 12),
        discriminator_widths=(8, 8, 8, 8),
    )
    train(Trainer(config, photos, CPU), folder / "runs" / "short")
    torch.manual_seed(0)
    save_generator(Generator(GeneratorConfig(widths=(8, 12))), folder / "random.safetensors")
    return folder


def invoke(work: Path, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setenv("TORCH_HOME", str(work / "torch"))
    common = ["--data", work / "photos", "--size", 32, "--device", "cpu", "--cache-dir", work / "cache"]
    return CliRunner().invoke(main, ["evaluate", *map(str, [*common, *arguments])])


def test_command_writes_table_and_figures(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    done = invoke(work, work / "runs" / "short", f"chance={work / 'random.safetensors'}", "--out", out, "--json",
                  monkeypatch=monkeypatch)  # fmt: skip
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record == json.loads((out / "table.json").read_text())
    assert [row["method"] for row in record["rows"]] == ["grey", "short", "chance", "truth"]
    assert all(row["l_perc"] is None for row in record["rows"]) and "L_perc was not measured" in record["note"]
    assert "L_perc was not measured" in done.stderr
    markdown = (out / "table.md").read_text()
    assert markdown.count("\n|") == 5 and "L_perc was not measured" in markdown
    for name, smallest in (("fig4_histograms.png", (400, 1000)), ("fig5_grid.png", (1000, 800))):
        image = cv2.imread(str(out / name))
        assert image.shape[0] >= smallest[0] and image.shape[1] >= smallest[1]
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100, f"{name} is blank"


def test_command_shows_the_networks_old_film(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [work / "random.safetensors", "--json", "--film-look"]
    first, second, plain = (
        json.loads(invoke(work, *some, monkeypatch=monkeypatch).stdout)
        for some in (arguments, arguments, arguments[:-1])
    )
    assert first == second and "old film" in first["note"] and "old film" not in plain["note"]
    assert first["rows"][1]["l1"] != plain["rows"][1]["l1"] and first["rows"][0] == plain["rows"][0]


def test_command_evaluates_the_runs_average(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = load_checkpoint(checkpoints(work / "runs" / "short" / "checkpoints")[-1])
    generator = Generator(TrainConfig.from_dict(state["config"]).generator)
    rows = []
    for name in ("ema", "generator"):
        generator.load_state_dict(state[name])
        save_generator(generator, work / f"{name}.safetensors")
        rows.append(invoke(work, work / f"{name}.safetensors", "--json", monkeypatch=monkeypatch))
    run = json.loads(invoke(work, work / "runs" / "short", "--json", monkeypatch=monkeypatch).stdout)["rows"][1]
    averaged, last = (json.loads(row.stdout)["rows"][1] for row in rows)
    assert run["l1"] == pytest.approx(averaged["l1"], rel=1e-5) and run["l1"] != pytest.approx(last["l1"], rel=1e-5)


def test_command_prints_a_table_or_markdown(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = invoke(work, f"[b]={work / 'random.safetensors'}", "--images", 3, monkeypatch=monkeypatch)
    assert table.stdout.count("[dB]") == 2 and "[b]" in table.stdout
    assert (
        table.exit_code == 0
        and "3 photographs" in table.stdout
        and "colourfulness" in table.stdout
        and "…" not in table.stdout
    )
    markdown = invoke(work, work / "random.safetensors", "--images", 3, "--markdown", monkeypatch=monkeypatch)
    assert markdown.stdout.startswith("| method | L1 |")
    both = invoke(work, work / "random.safetensors", "--json", "--markdown", monkeypatch=monkeypatch)
    assert both.exit_code == 2


def test_photographs_that_were_not_evaluated_are_counted(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photo(tmp_path / "more" / "grey.png", np.full((40, 40, 3), 90, np.uint8))
    done = invoke(work, "--data", tmp_path / "more", work / "random.safetensors", "--json", monkeypatch=monkeypatch)
    record = json.loads(done.stdout)
    assert record["images"] == 8 and record["note"].startswith("1 images left out (1 grey); L_perc")
    assert "1 images left out (1 grey)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{work}/nothing.safetensors"], "nothing.safetensors"),
        (["{work}/no_run"], "no_run is no run folder"),
        (["{work}/photos"], "not a run folder"),
        (["{work}/random.safetensors", "random={work}/random.safetensors"], "two methods are called 'random'"),
        (["{work}/random.safetensors", "--size", "30"], "multiples of 4"),
        (["{work}/random.safetensors", "--vgg", "{work}/no.pth"], "no.pth"),
    ],
)
def test_command_errors(arguments: list[str], said: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = invoke(work, *(argument.format(work=work) for argument in arguments), monkeypatch=monkeypatch)
    assert done.exit_code == 1
    assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr
