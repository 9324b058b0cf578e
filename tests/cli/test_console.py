"""What every command shares."""

from __future__ import annotations

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
