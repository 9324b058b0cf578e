"""The training loop: step, log, watch, validate, save, resume."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor

from archivecolor.config import RunOptions
from archivecolor.training.checkpoints import (
    MetricsLog,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    write_text,
    writing,
)
from archivecolor.training.curves import draw_curves
from archivecolor.training.monitor import CollapseWatch, DivergedError, first_not_finite
from archivecolor.training.samples import save_samples
from archivecolor.training.sampling import Prefetcher
from archivecolor.training.tensorboard import EventLog
from archivecolor.training.trainer import Trainer

log = logging.getLogger(__name__)

SAMPLES = 8


@dataclass(frozen=True)
class LoopProgress:
    """Where a run is: ``losses`` are means since the last report."""

    step: int
    total_steps: int
    losses: dict[str, float]
    images_per_s: float
    seconds_left: float


class Reporter(Protocol):
    """Told about the progress of a run; the command line shows it."""

    def on_step(self, step: int, total_steps: int) -> None:
        """So many steps are done, or at least in the device's queue."""

    def on_log(self, progress: LoopProgress) -> None:
        """The losses have been logged."""

    def on_validation(self, step: int, scores: dict[str, float]) -> None:
        """Scores on the held-out photographs."""

    def on_checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint is safely on disk."""

    def on_warning(self, step: int, message: str) -> None:
        """Something looks wrong, and the run goes on."""


class SilentReporter:
    """Reports nothing."""

    def on_step(self, step: int, total_steps: int) -> None: ...

    def on_log(self, progress: LoopProgress) -> None: ...

    def on_validation(self, step: int, scores: dict[str, float]) -> None: ...

    def on_checkpoint(self, step: int, path: Path) -> None: ...

    def on_warning(self, step: int, message: str) -> None: ...


def train(
    trainer: Trainer,
    run: Path,
    options: RunOptions | None = None,
    *,
    reporter: Reporter | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train until the run's length or until ``should_stop``; everything worth keeping goes into the folder ``run``.

    Starts from the newest whole checkpoint in ``run`` where there is one. In a run of several processes each calls
    this; the first one writes.

    Returns:
        Whether the run is complete (False: stopped, with a checkpoint written).

    Raises:
        DivergedError: a loss or a weight is no longer a number; the last checkpoint is from before.
        DataError: the run folder cannot be resumed or written.
    """
    options, reporter, processes = options or RunOptions(), reporter or SilentReporter(), trainer.processes
    folder = RunFolder(run, trainer, options, reporter)
    watch = CollapseWatch(trainer.config)
    total_steps = trainer.total_steps

    with folder, Prefetcher(trainer.batches.fetch) as photos:
        meter = Meter(trainer.config.batch_size)
        while trainer.step < total_steps and not processes.any(should_stop()):
            terms = trainer.train_step(trainer.batches.batch(trainer.step, photos.get(trainer.step)))
            meter.add(terms)
            step, last = trainer.step, trainer.step == total_steps
            reporter.on_step(step, total_steps)

            if due(step, options.log_every) or last:
                values = meter.means(processes.mean)
                folder.log_losses(values, meter.images_per_s())
                if warning := watch.observe(values):
                    folder.log_warning(warning)
                meter.restart()
            if due(step, options.validate_every) or last:
                folder.validate()
                meter.pause()
            if due(step, options.sample_every) or last:
                folder.sample()
                meter.pause()
            if due(step, options.checkpoint_every) and not last:
                folder.save(meter.means(processes.mean))
                meter.pause()
        folder.save(meter.means(processes.mean), in_haste=trainer.step < total_steps)
    return trainer.step >= total_steps


def due(step: int, every: int) -> bool:
    """Whether something done every so many steps falls on ``step``; never where ``every`` is 0."""
    return every > 0 and step % every == 0


class Meter:
    """Means of the loss terms, kept on the device until they are asked for, and the images a second."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.restart()

    def restart(self) -> None:
        """Start a new interval."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._steps, self._seconds, self._since = 0, 0.0, time.perf_counter()

    def add(self, terms: dict[str, Tensor]) -> None:
        """Count one step."""
        for name, term in terms.items():
            self._sums[name] = self._sums[name] + term if name in self._sums else term
            self._counts[name] = self._counts.get(name, 0) + 1
        self._steps += 1
        self._seconds += -self._since + (now := time.perf_counter())
        self._since = now

    def pause(self) -> None:
        """Leave out the time since the last step."""
        self._since = time.perf_counter()

    def means(self, over_processes: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Mean of each term over the steps of the interval and over the processes; empty where there was no step."""
        if not self._sums:
            return {}
        sums = torch.stack([self._sums[name].float() for name in self._sums])
        means = over_processes(sums).tolist()
        return {name: mean / self._counts[name] for name, mean in zip(self._sums, means, strict=True)}

    def images_per_s(self) -> float:
        """Photographs trained on a second, over all processes."""
        seconds = self._seconds + time.perf_counter() - self._since  # what the device had still to finish counts too
        return self._steps * self._batch_size / seconds


class RunFolder:
    """What a run leaves behind; written by the first process only.

    ``metrics.jsonl``, ``checkpoints/``, ``curves.png`` (Fig. 3), ``samples/``, ``left_out.tsv`` and, where tensorboard
    is installed, ``tensorboard/``.
    """

    def __init__(self, path: Path, trainer: Trainer, options: RunOptions, reporter: Reporter) -> None:
        self.path, self.trainer, self.options, self.reporter = path, trainer, options, reporter
        self.metrics = MetricsLog(path / "metrics.jsonl")
        self._writes = trainer.processes.is_first
        self._events: EventLog | None = None
        self._saved_step: int | None = None

    def __enter__(self) -> RunFolder:
        """Make the folder and take up the newest whole checkpoint in it, in all processes."""
        newest: Path | None = None
        warnings: list[str] = []
        if self._writes:
            with writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            newest, warnings = newest_checkpoint(self.path / "checkpoints")
        newest = self.trainer.processes.from_first(newest)
        if newest is not None:
            state = load_checkpoint(newest)
            if state.get("photos", self.trainer.photos.fingerprint) != self.trainer.photos.fingerprint:
                warnings.append("the photographs are not those that this run began with; it goes on with these")
            self.trainer.load_state_dict(state)
            self._saved_step = self.trainer.step
        if not self._writes:
            return self
        self.metrics.rewind(self.trainer.step)
        lines = [f"{entry.path}\t{entry.reason}\n" for entry in self.trainer.photos.left_out]
        write_text(self.path / "left_out.tsv", "path\treason\n" + "".join(lines))
        self._events = EventLog.open(self.path / "tensorboard", self.trainer.step)
        for warning in warnings:
            self.log_warning(warning)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events:
            self._events.close()

    def log_losses(self, losses: dict[str, float], images_per_s: float) -> None:
        """Add the mean loss terms since the last time to the metrics, unless one is no longer a number."""
        if (name := first_not_finite(losses)) is not None:
            raise DivergedError(self.path, self.trainer.step, name, self._saved_step)
        if self._writes:
            step, total_steps, batch_size = self.trainer.step, self.trainer.total_steps, self.trainer.config.batch_size
            self._record({"step": step, "images": step * batch_size, **losses, "images_per_s": images_per_s})
            seconds_left = (total_steps - step) * batch_size / images_per_s
            self.reporter.on_log(LoopProgress(step, total_steps, losses, images_per_s, seconds_left))

    def log_warning(self, warning: str) -> None:
        """Say, and keep, that something looks wrong."""
        if self._writes:
            log.warning("%s, step %d: %s", self.path, self.trainer.step, warning)
            self._record({"step": self.trainer.step, "warning": warning})
            self.reporter.on_warning(self.trainer.step, warning)

    def validate(self) -> None:
        """Score the held-out photographs and redraw the learning curves."""
        if not self._writes:
            return
        if self.trainer.batches.val_indices:
            scores = self.trainer.validate()
            self._record({"step": self.trainer.step, "validation": scores})
            self.reporter.on_validation(self.trainer.step, scores)
        draw_curves(self.metrics.read(), self.path / "curves.png", self.trainer.config)

    def sample(self) -> None:
        """A picture of the same few held-out photographs: grey, colourised, true."""
        if self._writes:
            indices = (self.trainer.batches.val_indices or self.trainer.batches.train_indices)[:SAMPLES]
            self.trainer.calibrate()
            lab, true_lab = self.trainer.colourise(indices)
            save_samples(self.path / "samples" / f"step-{self.trainer.step:08d}.png", lab, true_lab)

    def save(self, terms: dict[str, float], *, in_haste: bool = False) -> None:
        """Write a checkpoint, unless ``terms``, the losses since the last log, or the weights are no longer numbers.

        ``in_haste`` leaves out the calibration of the averaged generator, for a run that was told to stop.
        """
        name = first_not_finite(terms) or (None if self.trainer.is_finite() else "a weight")
        if name is not None:
            raise DivergedError(self.path, self.trainer.step, name, self._saved_step)
        if self._writes and self.trainer.step != self._saved_step:
            if not in_haste:
                self.trainer.calibrate()
            state = self.trainer.state_dict()
            path = save_checkpoint(self.path / "checkpoints", self.trainer.step, state, keep=self.options.keep)
            self.reporter.on_checkpoint(self.trainer.step, path)
        self._saved_step = self.trainer.step

    def _record(self, record: dict[str, Any]) -> None:
        self.metrics.append(record)
        if self._events:
            self._events.add(record)
