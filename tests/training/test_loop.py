"""The loop: resuming, the run folder, and what happens when something goes wrong."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import pytest
import torch

from archivecolor.config import RunOptions, TrainConfig
from archivecolor.errors import DataError
from archivecolor.training.checkpoints import MetricsLog, checkpoints, load_checkpoint, save_checkpoint
from archivecolor.training.data import LeftOut, PhotoSet
from archivecolor.training.loop import LoopProgress, SilentReporter, train
from archivecolor.training.monitor import DivergedError
from archivecolor.training.trainer import Trainer

CPU = torch.device("cpu")
OPTIONS = RunOptions(log_every=3, validate_every=4, sample_every=6, checkpoint_every=3, keep=2)


class Recorder(SilentReporter):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.logs: list[LoopProgress] = []
        self.warnings: list[str] = []
        self.saved: list[int] = []

    def on_log(self, progress: LoopProgress) -> None:
        self.logs.append(progress)

    def on_warning(self, step: int, message: str) -> None:
        self.warnings.append(message)

    def on_checkpoint(self, step: int, path: Path) -> None:
        self.saved.append(step)


class StopAt:
    """Asks the loop to stop once it has done ``steps`` steps."""

    def __init__(self, trainer: Trainer, steps: int) -> None:
        self.trainer, self.steps = trainer, steps

    def __call__(self) -> bool:
        return self.trainer.step >= self.steps


def same(a: object, b: object) -> bool:
    """Equal to the last bit, through nested containers."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("preset", ["bn-sn", "in"])
def test_resumed_equals_uninterrupted_bit_for_bit(
    preset: str, tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path
) -> None:
    config = replace(
        tiny_config, preset=preset, augment=True, film_look=True, balance=0.5, lr_schedule="linear", pretrain_images=16
    )
    whole = Trainer(config, tiny_photos, CPU)
    assert train(whole, tmp_path / "whole", OPTIONS) is True

    for steps in (2, 7, 8):  # within the warm-up, in the middle of an epoch, and once more
        part = Trainer(config, tiny_photos, CPU)
        assert train(part, tmp_path / "parts", OPTIONS, should_stop=StopAt(part, steps)) is False
        assert part.step == steps
    last = Trainer(config, tiny_photos, CPU)
    assert train(last, tmp_path / "parts", OPTIONS) is True
    assert last.step == whole.step == 12
    assert same(last.state_dict(), whole.state_dict())
    on_disk = [load_checkpoint(checkpoints(tmp_path / run / "checkpoints")[-1]) for run in ("whole", "parts")]
    assert same(*on_disk)
    other = Trainer(replace(config, seed=1), tiny_photos, CPU)
    train(other, tmp_path / "other", OPTIONS)
    assert not same(other.generator.state_dict(), whole.generator.state_dict())


def test_the_run_folder(tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path) -> None:
    tiny_photos.left_out.append(LeftOut(Path("grey.jpg"), "grey"))
    recorder, run = Recorder(), tmp_path / "run"
    train(Trainer(tiny_config, tiny_photos, CPU), run, OPTIONS, reporter=recorder)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [r for r in records if "l1" in r]
    assert [r["step"] for r in losses] == [3, 6, 9, 12] and losses[-1]["images"] == 48
    assert {"l1", "d_real", "d_fake", "g_adversarial", "images_per_s"} <= losses[0].keys()
    scores = [r["validation"] for r in records if "validation" in r]
    assert len(scores) == 3
    assert {"l1", "psnr_db", "colourfulness", "ab_intersection"} <= scores[0].keys()
    assert [path.name for path in checkpoints(run / "checkpoints")] == ["step-00000009.pt", "step-00000012.pt"]
    assert recorder.saved == [3, 6, 9, 12]
    assert [log.step for log in recorder.logs] == [3, 6, 9, 12] and recorder.logs[-1].seconds_left == 0
    assert recorder.logs[0].seconds_left == pytest.approx(9 * 4 / recorder.logs[0].images_per_s)
    assert (run / "left_out.tsv").read_text() == "path\treason\ngrey.jpg\tgrey\n"
    sample = cv2.imread(str(run / "samples" / "step-00000012.png"))
    assert sample.shape == (4 * 36 - 4, 3 * 36 - 4, 3)
    grey = sample[:32, :32].astype(int)
    assert abs(grey[..., 0] - grey[..., 2]).max() <= 1, "the first column is grey"
    assert abs(sample[:32, 72:].astype(int)[..., 0] - sample[:32, 72:].astype(int)[..., 2]).max() > 30, "the last true"
    curves = cv2.imread(str(run / "curves.png"))
    assert curves.shape[0] > 500 and len(set(map(tuple, curves.reshape(-1, 3)))) > 50
    assert not list(run.rglob("*.partial"))


def test_losses_are_means_since_the_last_log(tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path) -> None:
    stepped = Trainer(tiny_config, tiny_photos, CPU)
    terms = [stepped.train_step() for _ in range(3)]
    train(Trainer(replace(tiny_config, images=12), tiny_photos, CPU), tmp_path, OPTIONS)
    record = MetricsLog(tmp_path / "metrics.jsonl").read()[0]
    for name in ("l1", "d_real", "d_fake", "g_adversarial"):
        assert record[name] == pytest.approx(sum(float(t[name]) for t in terms) / 3, rel=1e-5)


def test_a_loss_that_is_no_number_stops_the_run_before_it_is_saved(
    tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path
) -> None:
    trainer = Trainer(tiny_config, tiny_photos, CPU)

    def poison() -> bool:
        if trainer.step == 7:
            with torch.no_grad():
                trainer.generator.output.bias.fill_(float("nan"))
        return False

    with pytest.raises(
        DivergedError, match=r"l1 is no longer a finite number at step 9; --resume goes on .* of step 6"
    ):
        train(trainer, tmp_path, OPTIONS, should_stop=poison)
    again = Trainer(tiny_config, tiny_photos, CPU)
    assert train(again, tmp_path, OPTIONS) is True
    untouched = Trainer(tiny_config, tiny_photos, CPU)
    train(untouched, tmp_path / "untouched", OPTIONS)
    assert same(again.state_dict(), untouched.state_dict()), "it went on from step 6, before the accident"


def test_weights_that_are_no_numbers_are_not_saved(
    tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path
) -> None:
    """Also on the way out: a stop just after the step that broke the weights, before any loss shows it."""
    trainer = Trainer(tiny_config, tiny_photos, CPU)

    def poison_and_stop() -> bool:
        if trainer.step == 4:
            with torch.no_grad():
                next(trainer.discriminator.parameters())[0] = float("inf")
        return trainer.step == 4

    with pytest.raises(DivergedError, match="a weight is no longer"):
        train(trainer, tmp_path, OPTIONS, should_stop=poison_and_stop)
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000003.pt"]


@pytest.mark.parametrize("damage", ["cut short", "empty", "one bit", "not a checkpoint"])
def test_a_damaged_newest_checkpoint_falls_back(
    damage: str, tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path
) -> None:
    train(Trainer(tiny_config, tiny_photos, CPU), tmp_path / "whole", OPTIONS)
    stopped = Trainer(tiny_config, tiny_photos, CPU)
    train(stopped, tmp_path / "run", OPTIONS, should_stop=StopAt(stopped, 6))
    older, newest = checkpoints(tmp_path / "run" / "checkpoints")
    content = bytearray(newest.read_bytes())
    if damage == "cut short":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        newest.write_bytes(b"")
    elif damage == "one bit":
        content[len(content) // 2] ^= 4
        newest.write_bytes(content)
    else:
        torch.save([1, 2], newest)
    recorder, resumed = Recorder(), Trainer(tiny_config, tiny_photos, CPU)
    assert train(resumed, tmp_path / "run", OPTIONS, reporter=recorder) is True
    assert len(recorder.warnings) == 1 and newest.name in recorder.warnings[0]
    assert newest.with_suffix(".damaged").exists() and older.name == "step-00000003.pt"
    expected = load_checkpoint(tmp_path / "whole" / "checkpoints" / "step-00000012.pt")
    assert same(resumed.state_dict(), expected)


def test_nothing_left_to_resume_from_is_said(tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path) -> None:
    train(Trainer(tiny_config, tiny_photos, CPU), tmp_path, OPTIONS)
    for path in checkpoints(tmp_path / "checkpoints"):
        path.write_bytes(b"gone")
    log = (tmp_path / "metrics.jsonl").read_text()
    for _ in range(2):  # also when it is tried again, as a scheduler would
        with pytest.raises(DataError, match="none of its 2 checkpoints is whole"):
            train(Trainer(tiny_config, tiny_photos, CPU), tmp_path, OPTIONS)
    assert (tmp_path / "metrics.jsonl").read_text() == log


def test_half_a_line_of_metrics_does_not_hinder(
    tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path
) -> None:
    stopped = Trainer(tiny_config, tiny_photos, CPU)
    train(stopped, tmp_path, OPTIONS, should_stop=StopAt(stopped, 7))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 9, "l1": 0.1}\n\xff\x00\n{"step": 12, "l1": 0.')
    train(Trainer(tiny_config, tiny_photos, CPU), tmp_path, OPTIONS)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "l1" in r] == [3, 6, 9, 12]
    assert [r["step"] for r in records if "validation" in r] == [4, 8, 12]


def test_half_a_checkpoint_is_cleared_away(tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path) -> None:
    half = tmp_path / "checkpoints" / "step-00000003.partial"
    half.parent.mkdir()
    half.write_bytes(b"PK")
    assert train(Trainer(tiny_config, tiny_photos, CPU), tmp_path, OPTIONS) is True
    assert not half.exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1}, keep=1)

    def full(state: object, file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DataError, match="No space left"):
        save_checkpoint(tmp_path, 2, {"step": 2}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]


def test_other_photographs_on_resume_are_said(tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path) -> None:
    stopped = Trainer(tiny_config, tiny_photos, CPU)
    train(stopped, tmp_path, OPTIONS, should_stop=StopAt(stopped, 3))
    assert tiny_photos.pixels is not None
    fewer = PhotoSet(tiny_photos.paths[1:], tiny_photos.groups[1:], tiny_photos.pixels[1:], 32)
    recorder = Recorder()
    assert train(Trainer(tiny_config, fewer, CPU), tmp_path, OPTIONS, reporter=recorder) is True
    assert len(recorder.warnings) == 1 and "photographs" in recorder.warnings[0]


def test_a_checkpoint_of_another_network_is_refused(
    tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path
) -> None:
    train(Trainer(tiny_config, tiny_photos, CPU), tmp_path, OPTIONS)
    other = Trainer(replace(tiny_config, generator_widths=(8, 16)), tiny_photos, CPU)
    with pytest.raises(DataError, match="does not fit"):
        train(other, tmp_path, OPTIONS)


def test_a_run_folder_that_cannot_be_written_is_one_error(
    tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path
) -> None:
    for name in ("metrics.jsonl.partial", "curves.partial", "samples"):
        run = tmp_path / name.split(".")[0]
        if name == "samples":
            run.mkdir()
            (run / name).touch()
        else:
            (run / name).mkdir(parents=True)
        with pytest.raises(DataError, match=rf"{name.split('.')[0]}.*: cannot be written"):
            train(Trainer(tiny_config, tiny_photos, CPU), run, OPTIONS)


def test_every_step_is_reported(tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []

    class Steps(SilentReporter):
        def on_step(self, step: int, total_steps: int) -> None:
            steps.append((step, total_steps))

    train(Trainer(tiny_config, tiny_photos, CPU), tmp_path, OPTIONS, reporter=Steps())
    assert steps == [(step, 12) for step in range(1, 13)]


def test_tensorboard_reads_the_events(tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path) -> None:
    """With the real library, where it is installed: across a stop, a resume and an error."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    stopped = Trainer(tiny_config, tiny_photos, CPU)
    train(stopped, tmp_path, OPTIONS, should_stop=StopAt(stopped, 7))
    broken = Trainer(tiny_config, tiny_photos, CPU)
    newest = checkpoints(tmp_path / "checkpoints")[-1]
    newest.write_bytes(b"gone")  # so that step 6 is trained, and logged, twice

    def fail() -> bool:
        if broken.step == 10:
            raise RuntimeError("the machine")
        return False

    with pytest.raises(RuntimeError, match="the machine"):
        train(broken, tmp_path, OPTIONS, should_stop=fail)
    accumulator = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    logged = {r["step"]: r["l1"] for r in MetricsLog(tmp_path / "metrics.jsonl").read() if "l1" in r}
    events = {event.step: event.value for event in accumulator.Scalars("train/l1")}
    assert list(events) == [3, 6, 9] and events == pytest.approx(logged)
    assert [event.step for event in accumulator.Scalars("validation/l1")] == [4, 8]
    warnings = [event.tensor_proto.string_val[0].decode() for event in accumulator.Tensors("warning/text_summary")]
    assert len(warnings) == 1 and newest.name in warnings[0]


def test_tensorboard_events_where_it_is_installed(
    tiny_config: TrainConfig, tiny_photos: PhotoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scalars: dict[str, list[int]] = {}

    class SummaryWriter:
        def __init__(self, log_dir: str, purge_step: int) -> None:
            assert (log_dir, purge_step) == (str(tmp_path / "tensorboard"), 1)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            scalars.setdefault(name, []).append(step)

        def close(self) -> None:
            scalars["closed"] = []

    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    train(Trainer(tiny_config, tiny_photos, CPU), tmp_path, OPTIONS)
    assert scalars["train/l1"] == [3, 6, 9, 12] and scalars["validation/l1"] == [4, 8, 12]
    assert "closed" in scalars and "train/step" not in scalars
