"""What every command shares."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.progress import Progress

from archivecolor.cli.console import Display


def test_what_a_worker_tells_after_its_job_is_over_is_passed_over() -> None:
    with Progress(disable=True) as bars:
        bar = Display(bars, quiet=False).follow("reel.mp4")
        bar.update(1, 10, "colouring")
        assert [task.completed for task in bars.tasks] == [1]
        bar.close()
        bar.update(2, 10, "colouring")
        assert not bars.tasks


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows ends a process at once")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_command_line_is_being_imported(tmp_path: Path, number: signal.Signals) -> None:
    """A click that takes its time, and the signal meanwhile."""
    (tmp_path / "click.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-m", "archivecolor", "--help"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "importing\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "error: interrupted\n")
