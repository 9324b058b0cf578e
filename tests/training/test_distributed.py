"""Two processes with half batches against one with the whole."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from archivecolor.config import RunOptions
from archivecolor.errors import ConfigError
from archivecolor.training import distributed
from archivecolor.training.checkpoints import MetricsLog, checkpoints, load_checkpoint
from archivecolor.training.distributed import Processes
from archivecolor.training.loop import train
from tests.conftest import Start
from tests.training.two_processes import STEPS, make_trainer

RunTwo = Callable[[Path, str], list[tuple[bool, dict[str, torch.Tensor]]]]
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def run_two(start: Start) -> RunTwo:
    """Trains in two processes joined by gloo; returns whether each was complete, and its state."""

    def run(folder: Path, preset: str) -> list[tuple[bool, dict[str, torch.Tensor]]]:
        shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        command = [sys.executable, "-m", "tests.training.two_processes", folder, preset]
        both = []
        for rank in range(2):
            environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            with (folder / f"stderr{rank}").open("w") as errors:  # a pipe that nobody reads fills up
                both.append(start(command, cwd=ROOT, env=environment, stdout=errors, stderr=errors))
        for rank, process in enumerate(both):
            process.wait(120)
            errors_told = (folder / f"stderr{rank}").read_text()
            assert process.returncode == 0 and "deprecated" not in errors_told, errors_told
        return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]

    return run


def test_two_processes_follow_one(tmp_path: Path, run_two: RunTwo) -> None:
    """Batch norm, instance norm, three discriminators, crops and film look; only the order of sums differs."""
    one = make_trainer()
    train(one, tmp_path / "one", RunOptions(log_every=1, validate_every=0, sample_every=0))
    (complete, first), (_, second) = run_two(tmp_path, "ibn-sn-md")
    assert complete
    for name in ("generator", "discriminator", "ema"):
        for key, value in first[name].items():
            if name == "ema" and ("running" in key or "tracked" in key):
                continue  # the first process, which validates, has calibrated its average's batch norms
            assert torch.equal(value, second[name][key]), f"{name}.{key} differs between the processes"
    logs = [MetricsLog(tmp_path / run / "metrics.jsonl").read() for run in ("one", "run")]
    losses = [[{k: r[k] for k in r.keys() & {"l1", "d_real", "d_fake", "g_adversarial"}} for r in log] for log in logs]
    assert len(losses[1]) == len(losses[0])
    for alone, together in zip(*losses, strict=True):
        assert together == pytest.approx(alone, rel=2e-3)
    for name, network in (("generator", one.generator), ("discriminator", one.discriminator)):
        for key, value in network.state_dict().items():
            tolerance = 3e-4 if "running" not in key else 2e-3  # Adam moves a weight by about 2e-4 a step
            assert (value - first[name][key]).abs().float().mean() < tolerance * max(
                1.0, float(value.abs().float().mean())
            ), key


def test_a_stop_asked_of_one_process_stops_both_and_resumes(tmp_path: Path, run_two: RunTwo) -> None:
    (tmp_path / "stop").touch()
    states = run_two(tmp_path, "bn")
    assert [(complete, state["step"]) for complete, state in states] == [(False, 3)] * 2
    saved = [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")]
    assert saved == ["step-00000002.pt", "step-00000003.pt"]
    (tmp_path / "stop").unlink()
    (complete, resumed), _ = run_two(tmp_path, "bn")
    assert complete and resumed["step"] == STEPS

    (tmp_path / "straight").mkdir()
    (_, straight), _ = run_two(tmp_path / "straight", "bn")
    for key, value in straight["generator"].items():
        assert torch.equal(value, resumed["generator"][key]), key
    newest = load_checkpoint(checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert newest["step"] == STEPS


def test_batches_that_cannot_be_shared_are_refused() -> None:
    assert Processes(1, 2).share(8) == slice(4, 8)
    with pytest.raises(ConfigError, match="multiple of 3"):
        Processes(0, 3).share(8)


def test_half_an_environment_is_an_error() -> None:
    with pytest.raises(ConfigError, match="torchrun"):
        Processes.from_environment({"WORLD_SIZE": "2", "RANK": "0"})
    assert Processes.from_environment({}).world_size == 1


def test_a_process_that_nobody_joins_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_JOIN_TIMEOUT", timedelta(seconds=1))
    alone = {
        "WORLD_SIZE": "2",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    for name, value in alone.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="cannot join"):
        Processes.from_environment(alone)


def test_each_process_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    on_second_machine = Processes(rank=7, world_size=8, local_rank=3)
    assert on_second_machine.device_name("auto") == on_second_machine.device_name("cuda") == "cuda:3"
    assert on_second_machine.device_name("cpu") == "cpu"
    assert Processes().device_name("cuda:1") == "cuda:1" and Processes().device_name("auto") == "auto"
    with pytest.raises(ConfigError, match="share cuda:1"):
        on_second_machine.device_name("cuda:1")
    with pytest.raises(ConfigError, match="4 GPUs"):
        Processes(4, 8, local_rank=4).device_name("auto")


def test_a_lone_process_answers_for_itself() -> None:
    alone = Processes()
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    assert alone.is_first and alone.any(True) and not alone.any(False)
    assert alone.parallel(network) is network and alone.synchronise_batch_norm(network) is network
    assert alone.share(7) == slice(0, 7) and alone.from_first("x") == "x"
    assert torch.equal(alone.mean(torch.tensor([3.0])), torch.tensor([3.0]))
