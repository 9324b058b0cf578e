"""What every command shares: the console, the --quiet and --debug options, and errors turned into exit codes."""

from __future__ import annotations

import functools
import io
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from archivecolor.errors import ArchiveColorError

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def error_console() -> Console:
    """The console on stderr, where progress, warnings and errors go; made anew, so that tests can capture it."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


def print_error(message: str) -> None:
    """One line ``error: ...`` on stderr, taken literally."""
    error_console().print("[bold red]error:[/] ", end="")
    error_console().print(message, markup=False)


def print_warning(message: str) -> None:
    """One line ``warning: ...`` on stderr, taken literally."""
    error_console().print("[yellow]warning:[/] ", end="")
    error_console().print(message, markup=False)


def terminate_like_interrupt() -> None:
    """Make SIGTERM end the command as Ctrl-C does: threads stopped, nothing unfinished left behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def stop_on_signals() -> threading.Event:
    """Set by the first Ctrl-C or SIGTERM, for the work to end at a good place; the second ends it at once."""
    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        error_console().print("stopping once the segment at hand is finished (a second time stops at once)")

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    return stop


def command_options(function: Command) -> Command:
    """Give a command ``--quiet`` and ``--debug``; turn library errors into one line and exit code 1.

    The command function receives ``quiet`` and not ``debug``: what it does must not depend on it.
    """

    @click.option("--quiet", "-q", is_flag=True, help="No progress and no warnings; errors only.")
    @click.option("--debug", is_flag=True, help="Show log messages, and tracebacks instead of one-line errors.")
    @functools.wraps(function)
    def wrapper(*args: Any, quiet: bool, debug: bool, **kwargs: Any) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file may be no text
        level = logging.DEBUG if debug else logging.ERROR  # warnings reach the user in each command's report
        handler = RichHandler(console=error_console(), show_time=False, show_path=debug, markup=False)
        package_log = logging.getLogger("archivecolor")
        package_log.handlers, package_log.propagate = [handler], False
        package_log.setLevel(level)
        try:
            return function(*args, quiet=quiet, **kwargs)
        except ArchiveColorError as error:
            if debug:
                raise
            print_error(str(error))
            sys.exit(EXIT_FAILED)
        except OSError as error:
            if debug or error.strerror is None:
                raise
            print_error(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
            sys.exit(EXIT_FAILED)
        except KeyboardInterrupt:
            if debug:
                raise
            print_error("interrupted")
            sys.exit(EXIT_INTERRUPTED)

    return wrapper  # type: ignore[return-value]


class _ProgressBar:
    """A rich progress bar with frames/s, time left and the stage that the others wait for."""

    def __init__(self, progress: Any, task: Any) -> None:
        self._progress, self._task = progress, task
        self._begun, self._closed = False, False
        self._changing = threading.Lock()

    def update(self, frames: int, total: int | None, limiting: str) -> None:
        """See `archivecolor.colorize.progress.Progress`; what a worker has told too late is passed over."""
        with self._changing:
            if not self._closed:
                self._show(frames, total, limiting)

    def _show(self, frames: int, total: int | None, limiting: str) -> None:
        if not self._begun:  # what an earlier run left is not this one's speed
            self._progress.reset(self._task, completed=frames, total=total, limiting=limiting)
            self._begun = True
        self._progress.update(
            self._task, completed=frames, total=max(total, frames) if total else None, limiting=limiting
        )

    def close(self) -> None:
        """The job is over."""
        with self._changing:
            self._closed = True
            self._progress.remove_task(self._task)

    def say(self, text: str) -> None:
        """Above the bar."""
        self._progress.console.print(text, markup=False, style="yellow")


class _Lines:
    """No bar where stderr is no terminal: sentences only, and with ``quiet`` not even those."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def update(self, frames: int, total: int | None, limiting: str) -> None:
        """Silence."""

    def close(self) -> None:
        """Silence."""

    def say(self, text: str) -> None:
        """A line on stderr."""
        if not self._quiet:
            error_console().print(text, markup=False)


class Display:
    """The progress of jobs that go on side by side; silent where ``bars`` is None."""

    def __init__(self, bars: Any | None, quiet: bool) -> None:
        self._bars, self._quiet = bars, quiet

    def follow(self, title: str) -> _ProgressBar | _Lines:
        """The progress of one more job."""
        if self._bars is None:
            return _Lines(self._quiet)
        return _ProgressBar(self._bars, self._bars.add_task(title, total=None, limiting="starting"))

    def say(self, text: str) -> None:
        """A sentence about no job in particular."""
        if self._bars is None:
            _Lines(self._quiet).say(text)
        else:
            self._bars.console.print(text, markup=False, style="yellow")


@contextmanager
def progress_display(*, quiet: bool) -> Iterator[Display]:
    """Progress bars on stderr; none where stderr is no terminal or ``quiet`` is set."""
    console = error_console()
    if quiet or not console.is_terminal:
        yield Display(None, quiet)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    class Speed(TextColumn):
        def render(self, task: Any) -> Any:
            speed = task.finished_speed or task.speed
            return super().render(task) if speed is None else Text(f"{speed:.1f} frames/s")

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Speed("- frames/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[limiting]}", style="dim"),
        console=console,
        transient=True,
    ) as bars:
        yield Display(bars, quiet)
