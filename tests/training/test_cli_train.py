"""``archivecolor train`` and ``export`` as commands: settings, resuming, signals, kills."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from archivecolor.cli import main
from archivecolor.cli.train import StopSignals
from archivecolor.config import TrainConfig
from archivecolor.training.checkpoints import MetricsLog, checkpoints, load_checkpoint
from archivecolor.weights import load_generator, read_metadata
from tests.conftest import Start
from tests.training.conftest import make_photo, write_photo
from tests.training.test_loop import same

TINY = """
preset = "bn-sn"
size = 32
batch_size = 4
generator-widths = [8, 12]
discriminator-widths = "8,8,8,8"
val-fraction = 0.25
film_look = true
precision = "fp32"
device = "cpu"
"""


@pytest.fixture
def work(tmp_path: Path, photo_folder: Path) -> Path:
    """A folder with photographs and a configuration file; the photographs' cache stays in it."""
    (tmp_path / "tiny.toml").write_text(f'{TINY}\ndata = "{photo_folder}"\ncache-dir = "{tmp_path / "cache"}"\n')
    return tmp_path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def start_training(start: Start, work: Path) -> Start:
    """Starts ``archivecolor train`` with these arguments and the configuration file, by a ``launcher``."""

    def begin(*arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        command = [sys.executable, *launcher, "-m", "archivecolor", "train", "--config", work / "tiny.toml"]
        return start([*command, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"})

    return begin


def wait_for(condition: object, process: subprocess.Popen[str], seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.communicate(timeout=60)[1]
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_run_from_a_file_with_options_over_it(work: Path) -> None:
    done = invoke("train", "--config", work / "tiny.toml", "--out", work / "run", "--images", 24, "--gan-loss", "lsgan")
    assert done.exit_code == 0, done.output
    record = json.loads((work / "run" / "config.json").read_text())
    config = TrainConfig.from_dict(record["train"])
    assert (config.gan_loss, config.images, config.size_px, config.film_look) == ("lsgan", 24, 32, True)
    assert config.generator.widths == (8, 12) and config.lr_g == 2e-4
    assert record["data"] == [str(work / "photos")]
    assert load_checkpoint(checkpoints(work / "run" / "checkpoints")[-1])["step"] == 6


def test_defaults_are_the_papers() -> None:
    defaults = {p.name: p.default for command in (main.commands["train"],) for p in command.params}
    paper = {
        "preset": "ibn-sn-md",
        "gan_loss": "bce",
        "l1_weight": 100.0,
        "size_px": 256,
        "batch_size": 16,
        "epochs": 200,
    }
    adam = {"lr_g": 2e-4, "lr_d": 2e-4, "beta1": 0.5, "beta2": 0.999, "augment": False, "film_look": False}
    assert {name: defaults[name] for name in (*paper, *adam)} == {**paper, **adam}
    assert set(TrainConfig().to_dict()) <= set(defaults), "every setting has its option"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("colour = 3", "no option --colour"),
        ("batch_size = 'many'", "many"),
        ("= 3", "TOML"),
        ("config = 'x'", "--config"),
    ],
)
def test_a_bad_configuration_file_is_wrong_usage(line: str, said: str, work: Path) -> None:
    (work / "bad.toml").write_text(line)
    done = invoke("train", "--config", work / "bad.toml", "--out", work / "run", "--data", work)
    assert done.exit_code == 2 and said in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nowhere"], "nowhere: not a folder of photographs"),
        ([], "--data"),
        (["--data", ".", "--size", 100], "multiple of 128"),
        (["--data", ".", "--ema", 1.5], "ema must be from 0 to 1"),
        (["--data", ".", "--seed", 2**70], "seed must be"),
        (["--data", ".", "--size", 128, "--preset", "in-sn"], "at least 256 for in-sn"),
        (["--data", ".", "--size", 128, "--batch-size", 1], "batch_size must be at least 2"),
    ],
)
def test_errors_are_one_line_and_exit_1(arguments: list[object], said: str, tmp_path: Path) -> None:
    done = invoke("train", "--out", tmp_path / "run", *arguments)
    assert done.exit_code == 1
    assert said in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten_by_accident(work: Path) -> None:
    arguments = ("train", "--config", work / "tiny.toml", "--out", work / "run", "--images", 8)
    assert invoke(*arguments).exit_code == 0
    again = invoke(*arguments)
    assert again.exit_code == 1 and "--resume" in again.stderr and "step-00000002" in again.stderr
    assert invoke(*arguments, "--resume").exit_code == 0


def test_resuming_takes_the_saved_settings_and_only_the_length_may_change(work: Path) -> None:
    run = work / "run"
    assert invoke("train", "--config", work / "tiny.toml", "--out", run, "--images", 8).exit_code == 0
    refused = invoke("train", "--out", run, "--resume", "--l1-weight", 10, "--seed", 3, "--images", 16)
    assert refused.exit_code == 1
    assert "l1_weight is 100.0, not 10" in refused.stderr and "seed is 0, not 3" in refused.stderr
    longer = invoke("train", "--out", run, "--resume", "--images", 16, "--l1-weight", 100)
    assert longer.exit_code == 0, longer.output
    assert TrainConfig.from_dict(json.loads((run / "config.json").read_text())["train"]).images == 16
    assert load_checkpoint(checkpoints(run / "checkpoints")[-1])["step"] == 4
    epochs = invoke("train", "--out", run, "--resume", "--epochs", 3)
    assert epochs.exit_code == 0, epochs.output
    assert load_checkpoint(checkpoints(run / "checkpoints")[-1])["step"] == 6  # 9 photographs to train on, 2 batches


def test_resuming_works_as_the_run_was_begun(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Precision, cache and cadence too: nothing but the folder has to be named, from wherever."""
    run = work / "run"
    monkeypatch.chdir(work)
    begun = invoke("train", "--config", "tiny.toml", "--out", run, "--images", 8, "--log-every", 1, "--keep", 5,
                   "--cache-dir", "kept")  # fmt: skip
    assert begun.exit_code == 0, begun.output
    monkeypatch.chdir("/")
    resumed = invoke("train", "--out", run, "--resume", "--images", 16, "--checkpoint-every", 1)
    assert resumed.exit_code == 0, resumed.output
    assert [r["step"] for r in MetricsLog(run / "metrics.jsonl").read() if "l1" in r] == [1, 2, 3, 4]
    assert len(checkpoints(run / "checkpoints")) == 3
    options = json.loads((run / "config.json").read_text())["options"]
    assert (options["precision"], options["device"], options["cache_dir"]) == ("fp32", "cpu", str(work / "kept"))
    assert (options["log_every"], options["keep"], options["checkpoint_every"]) == (1, 5, 1)


def test_a_run_that_has_learnt_nothing_yet_takes_other_settings(work: Path) -> None:
    """As when it was killed, or refused, before its first checkpoint, and is begun anew with --resume."""
    run = work / "run"
    refused = invoke("train", "--config", work / "tiny.toml", "--out", run, "--batch-size", 100, "--resume")
    assert refused.exit_code == 1 and "choose a smaller --batch-size" in refused.stderr
    assert not run.exists()
    assert invoke("train", "--config", work / "tiny.toml", "--out", run, "--images", 8).exit_code == 0
    for path in checkpoints(run / "checkpoints"):
        path.unlink()
    begun = invoke("train", "--out", run, "--resume", "--gan-loss", "lsgan", "--images", 4)
    assert begun.exit_code == 0, begun.output
    state = load_checkpoint(checkpoints(run / "checkpoints")[-1])
    assert (state["step"], state["config"]["gan_loss"], state["config"]["size_px"]) == (1, "lsgan", 32)


def test_left_out_photographs_are_counted_and_listed(work: Path) -> None:
    write_photo(work / "photos" / "tiny.png", make_photo(0, 8, 8))
    (work / "photos" / "broken.jpg").write_bytes(b"no")
    done = invoke("train", "--config", work / "tiny.toml", "--out", work / "run", "--images", 4)
    assert done.exit_code == 0
    assert "2 images left out (1 not a readable image, 1 smaller than 32 px)" in done.stderr.replace("\n", " ")
    assert len((work / "run" / "left_out.tsv").read_text().splitlines()) == 3
    quiet = invoke("train", "--config", work / "tiny.toml", "--out", work / "run2", "--images", 4, "--quiet")
    assert quiet.exit_code == 0 and quiet.output == ""


def test_export_and_starting_from_it(work: Path) -> None:
    run, weights = work / "run", work / "out" / "small.safetensors"
    assert invoke("train", "--config", work / "tiny.toml", "--out", run, "--images", 24).exit_code == 0
    done = invoke("export", run, "-o", weights, "--cache-dir", work / "cache", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["images"] == 24 and said["preset"] == "bn-sn" and said["bytes"] == weights.stat().st_size
    assert 0 <= said["int8_mean_abs_dab"] < 1
    state = load_checkpoint(checkpoints(run / "checkpoints")[-1])
    exported = load_generator(weights).state_dict()
    for name, value in state["ema"].items():  # small enough to stay exact
        if "running" in name:  # calibrated again, in float32
            torch.testing.assert_close(exported[name], value, rtol=0.1, atol=0.02)
        elif "num_batches" not in name:
            assert torch.equal(exported[name], value), name
    metadata = read_metadata(weights)
    assert metadata["images"] == "24" and json.loads(metadata["validation"])["step"] == 6
    assert str(work) not in json.dumps(metadata), "the metadata names no folder of the machine"

    started = invoke("train", "--config", work / "tiny.toml", "--out", work / "next", "--images", 4, "--init", weights)
    assert started.exit_code == 0, started.output
    other = invoke(
        "train", "--config", work / "tiny.toml", "--out", work / "no", "--init", weights, "--generator-widths", "8,16"
    )
    assert other.exit_code == 1 and "widths" in other.stderr


def test_a_run_starts_from_another_runs_networks(work: Path) -> None:
    first, second = work / "first", work / "second"
    assert invoke("train", "--config", work / "tiny.toml", "--out", first, "--images", 8).exit_code == 0
    still = ("--lr-g", 0, "--lr-d", 0)
    done = invoke("train", "--config", work / "tiny.toml", "--out", second, "--images", 4, "--init", first, *still)
    assert done.exit_code == 0, done.output
    before, after = (load_checkpoint(checkpoints(run / "checkpoints")[-1]) for run in (first, second))
    assert before["step"] == 2 and after["step"] == 1
    for began, average in ((after["generator"], before["ema"]), (after["discriminator"], before["discriminator"])):
        weights = [name for name in average if name.endswith("weight")]
        assert weights and all(torch.equal(began[name], average[name]) for name in weights)
    nothing = invoke("train", "--config", work / "tiny.toml", "--out", work / "no", "--init", work / "photos")
    assert nothing.exit_code == 1 and "not a run folder" in nothing.stderr


def test_export_blends_two_networks(work: Path) -> None:
    for name, images in (("first", 4), ("second", 40)):
        done = invoke("train", "--config", work / "tiny.toml", "--out", work / name, "--images", images)
        assert done.exit_code == 0, done.output
    weights = {}
    for share in (0, 0.25, 1):
        path = work / f"{share}.safetensors"
        done = invoke("export", work / "first", "-o", path, "--blend", work / "second", "--share", share)
        assert done.exit_code == 0, done.output
        weights[share] = load_generator(path).state_dict()
    alone = work / "alone.safetensors"
    assert invoke("export", work / "second", "-o", alone).exit_code == 0
    assert read_metadata(work / "0.25.safetensors")["blended"] == "0.25 of the way to second"
    for name, value in weights[0.25].items():
        if name.endswith((".weight", ".bias")):
            torch.testing.assert_close(value, torch.lerp(weights[0][name], weights[1][name], 0.25))
    l_norm = torch.rand(2, 1, 32, 32) * 2 - 1
    colours = load_generator(alone)(l_norm)
    near, far = ((load_generator(work / f"{n}.safetensors")(l_norm) - colours).abs().mean() for n in (1, 0))
    assert near < far / 4
    alone_share = invoke("export", work / "first", "-o", alone, "--share", 0.5)
    assert alone_share.exit_code == 2 and "--blend" in alone_share.stderr
    (work / "photos").rename(work / "moved")
    refused = invoke("export", work / "first", "-o", alone, "--blend", work / "second")
    assert refused.exit_code == 1 and "photos" in refused.stderr


def test_export_without_its_photographs_says_so(work: Path) -> None:
    run = work / "run"
    assert invoke("train", "--config", work / "tiny.toml", "--out", run, "--images", 8).exit_code == 0
    (work / "photos").rename(work / "moved")
    done = invoke("export", run, "-o", work / "w.safetensors")
    assert done.exit_code == 0 and (work / "w.safetensors").is_file()
    assert "neither calibrated nor measured" in done.stderr
    measured = invoke(
        "export", run, "-o", work / "w.safetensors", "--data", work / "moved", "--cache-dir", work / "cache"
    )
    assert measured.exit_code == 0 and "int8 moves a and b by" in measured.stdout
    assert invoke("export", work / "moved", "-o", work / "x.safetensors").exit_code == 1
    wrong = invoke("export", run, "-o", work / "w.pt")
    assert wrong.exit_code == 1 and "safetensors" in wrong.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_first(number: signal.Signals, work: Path, start_training: Start) -> None:
    run = work / "run"
    process = start_training("--out", run, "--images", 400000, "--log-every", 1, "--checkpoint-every", 100000)
    wait_for(lambda: len(MetricsLog(run / "metrics.jsonl").read()) >= 3, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "--resume" in errors
    (saved,) = checkpoints(run / "checkpoints")
    step = load_checkpoint(saved)["step"]
    assert step >= 3
    resumed = invoke("train", "--out", run, "--resume", "--images", 4 * step + 8)
    assert resumed.exit_code == 0, resumed.output
    straight = invoke("train", "--config", work / "tiny.toml", "--out", work / "straight", "--images", 4 * step + 8)
    assert straight.exit_code == 0, straight.output
    ends = [load_checkpoint(checkpoints(work / name / "checkpoints")[-1]) for name in ("run", "straight")]
    for network in ("generator", "discriminator", "ema", "optimiser_g", "optimiser_d"):
        assert same(ends[0][network], ends[1][network]), network


def test_kill_9_never_leaves_a_run_that_cannot_resume(work: Path, start_training: Start) -> None:
    kill_repeatedly(work, start_training, kills=int(os.environ.get("ARCHIVECOLOR_TEST_KILLS", "3")))


def kill_repeatedly(work: Path, start_training: Start, kills: int) -> None:
    """Kill a run at random moments; it must get on each time, and end as one that was left alone."""
    run, dice = work / "run", random.Random(5)
    arguments = ("--out", run, "--resume", "--log-every", 1, "--checkpoint-every", 1, "--sample-every", 3)
    reached = 0
    for _ in range(kills):
        process = start_training(*arguments, "--images", 4_000_000)
        wait_for(lambda before=reached: _newest_step(run) > before, process)
        time.sleep(dice.uniform(0, 0.5))
        process.kill()
        process.communicate(timeout=60)
        assert _newest_step(run) > reached
        reached = _newest_step(run)
    last = start_training(*arguments, "--images", 4 * (reached + 3))
    _, errors = last.communicate(timeout=120)
    assert last.returncode == 0, errors
    assert load_checkpoint(checkpoints(run / "checkpoints")[-1])["step"] == reached + 3
    steps = [r["step"] for r in MetricsLog(run / "metrics.jsonl").read() if "l1" in r]
    assert steps == list(range(1, reached + 4)), "each step is logged once"
    straight = invoke(
        "train", "--config", work / "tiny.toml", "--out", work / "straight", "--images", 4 * (reached + 3)
    )
    assert straight.exit_code == 0, straight.output
    ends = [load_checkpoint(checkpoints(work / name / "checkpoints")[-1]) for name in ("run", "straight")]
    for network in ("generator", "discriminator", "ema", "optimiser_g", "optimiser_d"):
        assert same(ends[0][network], ends[1][network]), network


def _newest_step(run: Path) -> int:
    found = checkpoints(run / "checkpoints")
    return int(found[-1].stem.removeprefix("step-")) if found else 0


def test_a_signal_that_comes_twice_is_one_request_under_torchrun() -> None:
    """From the terminal and from torchrun itself; on its own, a second one means now."""
    with StopSignals(insist=False) as stop:
        stop.patient = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        assert stop.requested() and stop.received == signal.SIGINT
    with StopSignals(insist=True) as stop:
        stop.patient = True
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    with StopSignals(insist=False), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_torchrun(work: Path, start_training: Start) -> None:
    run = work / "run"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2")
    process = start_training("--out", run, "--images", 24, "--log-every", 1, launcher=launcher)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert load_checkpoint(checkpoints(run / "checkpoints")[-1])["step"] == 6
    records = MetricsLog(run / "metrics.jsonl").read()
    assert [r["step"] for r in records if "l1" in r] == [1, 2, 3, 4, 5, 6], "one process logs"
    assert errors.count(f"{run}: trained") == 1 and "Warning" not in errors, errors
