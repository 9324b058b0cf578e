"""Fixtures that several test packages share."""

from __future__ import annotations

import faulthandler
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from archivecolor.config import GeneratorConfig
from archivecolor.networks import Generator
from archivecolor.weights import save_generator

Start = Callable[..., "subprocess.Popen[str]"]

TEARDOWN_S = 120
EXIT_S = 60
ROOM_BYTES = 1 << 30
stderr = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[stderr] = os.dup(sys.stderr.fileno())  # before it is captured


def pytest_sessionstart() -> None:
    if (free := shutil.disk_usage(tempfile.gettempdir()).free) < ROOM_BYTES:
        pytest.exit(f"{tempfile.gettempdir()}: {free / 1e6:.0f} MB are free; films would wait for space", returncode=1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """A test that failed has no limit any more, and a thread that hangs may be waited for again."""
    faulthandler.dump_traceback_later(TEARDOWN_S, exit=True, file=item.config.stash[stderr])
    return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Threads that hang must not keep the interpreter from ending."""
    faulthandler.dump_traceback_later(EXIT_S, exit=True, file=config.stash[stderr])


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """Commands that are tried in this process leave theirs, which would let whoever ends the tests wait."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Commands that are tried in this process send the package's log elsewhere."""
    package_log = logging.getLogger("archivecolor")
    before = package_log.handlers, package_log.propagate, package_log.level
    yield
    package_log.handlers, package_log.propagate = before[:2]
    package_log.setLevel(before[2])


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts commands, as `subprocess.Popen`; none outlives the test."""
    processes: list[subprocess.Popen[str]] = []

    def begin(command: Sequence[object], **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(list(map(str, command)), text=True, **{**pipes, **options}))
        return processes[-1]

    yield begin
    for process in processes:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()  # first, since a launcher then ends those that it has started
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()  # unread: what a process has left behind may hold the other end


@pytest.fixture
def start_colorize(start: Start) -> Start:
    """Starts ``archivecolor colorize`` with these arguments."""
    return lambda *arguments: start([sys.executable, "-m", "archivecolor", "colorize", *arguments])


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small seeded generator whose colours are strong enough to be seen."""
    torch.manual_seed(7)
    generator = Generator(GeneratorConfig(widths=(8, 12, 16)))
    with torch.no_grad():
        generator.output.bias.copy_(torch.tensor([0.12, 0.2]))
        generator.decoder[-1].norm.weight.fill_(0.3)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_generator(generator, path)
    return path


@pytest.fixture
def use_tiny_weights(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the tiny weights the ones that are found when none are named."""
    monkeypatch.setenv("ARCHIVECOLOR_WEIGHTS", str(tiny_weights))
    return tiny_weights
