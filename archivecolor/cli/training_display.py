"""What ``archivecolor train`` shows while it works, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from archivecolor.cli.console import error_console, print_warning

if TYPE_CHECKING:
    from archivecolor.training.loop import LoopProgress, Reporter


SHOWN_SCORES = ("l1", "psnr_db", "colourfulness_ratio", "ab_intersection")


@contextmanager
def decoding_bar(silent: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar for photographs being decoded; None where there is no terminal."""
    console = error_console()
    if silent or not console.is_terminal:
        yield None
        return
    with Progress(
        TextColumn("decoding photographs"), BarColumn(), MofNCompleteColumn(), console=console, transient=True
    ) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def training_display(title: str, silent: bool) -> Iterator[Reporter]:
    """A reporter for the loop: a live display on a terminal, warnings alone elsewhere, nothing where ``silent``."""
    console = error_console()
    if silent or not console.is_terminal:
        yield WarningReporter(silent)
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield LiveReporter(title, live)


class LiveReporter:
    """Shows a run as it goes: progress, images/s, time left, the loss terms, the last scores."""

    def __init__(self, title: str, live: Live) -> None:
        self._live = live
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}", style="cyan"),
            auto_refresh=False,
        )
        self._task = self._progress.add_task(title, total=None, speed="")
        self._losses: dict[str, float] = {}
        self._scores: dict[str, float] = {}
        self._note = ""
        self._show()

    def on_step(self, step: int, total_steps: int) -> None:
        """See `archivecolor.training.loop.Reporter`."""
        self._progress.update(self._task, completed=step, total=total_steps)

    def on_log(self, progress: LoopProgress) -> None:
        """See `archivecolor.training.loop.Reporter`."""
        self._losses = progress.losses
        speed = f"{progress.images_per_s:.1f} images/s, {duration(progress.seconds_left)} left"
        self._progress.update(self._task, speed=speed)
        self._show()

    def on_validation(self, step: int, scores: dict[str, float]) -> None:
        """See `archivecolor.training.loop.Reporter`."""
        self._scores = {name: scores[name] for name in SHOWN_SCORES if name in scores}
        self._show()

    def on_checkpoint(self, step: int, path: Path) -> None:
        """See `archivecolor.training.loop.Reporter`."""
        self._note = f"last checkpoint: {path.name}"
        self._show()

    def on_warning(self, step: int, message: str) -> None:
        """See `archivecolor.training.loop.Reporter`."""
        self._live.console.print(Text.assemble(("warning:", "yellow"), f" step {step}: {message}"))

    def _show(self) -> None:
        lines = [
            Text(f"{title:<11}", "dim") + Text("   ".join(f"{name} {value:.4g}" for name, value in values.items()))
            for title, values in (("losses", self._losses), ("validation", self._scores))
            if values
        ]
        self._live.update(Group(self._progress, *lines, Text(self._note, "dim")))


class WarningReporter:
    """Where there is no terminal to draw on: warnings only, and not even these where ``silent``."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent

    def on_step(self, step: int, total_steps: int) -> None:
        """Nothing."""

    def on_log(self, progress: LoopProgress) -> None:
        """Nothing: metrics.jsonl has it."""

    def on_validation(self, step: int, scores: dict[str, float]) -> None:
        """Nothing: metrics.jsonl has it."""

    def on_checkpoint(self, step: int, path: Path) -> None:
        """Nothing."""

    def on_warning(self, step: int, message: str) -> None:
        """One line on stderr."""
        if not self._silent:
            print_warning(f"step {step}: {message}")


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
