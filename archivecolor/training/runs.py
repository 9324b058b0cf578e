"""Run folders: what a run was begun with, how it may be continued, and the generator that it has trained."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from archivecolor import __version__
from archivecolor.config import TrainConfig
from archivecolor.errors import ConfigError, DataError
from archivecolor.networks import Generator
from archivecolor.training.checkpoints import checkpoints, load_checkpoint, write_json

CONFIG_FILE = "config.json"
LENGTH = ("images", "epochs")
"""The settings that a resumed run may change."""


@dataclass(frozen=True)
class Run:
    """What ``config.json`` in a run folder says."""

    config: TrainConfig
    data: tuple[Path, ...]

    def write(self, folder: Path) -> None:
        """Write ``config.json``; raises `DataError` where the folder cannot be written."""
        record = {
            "archivecolor": __version__,
            "data": [str(path.resolve()) for path in self.data],
            "train": self.config.to_dict(),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / CONFIG_FILE, record)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error

    @classmethod
    def read(cls, folder: Path) -> Run | None:
        """The record in ``folder``, None where there is none; raises `DataError` if it is damaged."""
        path = folder / CONFIG_FILE
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_text())
            return cls(TrainConfig.from_dict(record["train"]), tuple(Path(data) for data in record["data"]))
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            raise DataError(f"{path}: not the configuration of a run ({error})") from error


def begin_or_resume(folder: Path, asked: Run, given: Collection[str], *, resume: bool) -> Run:
    """What to train in ``folder``.

    Args:
        asked: what the command line and its defaults say.
        given: names of the settings that were asked for by name rather than by default.
        resume: go on with what is there, if anything is; its configuration then holds, but for its `LENGTH`.

    Raises:
        DataError: ``folder`` has checkpoints and ``resume`` is not set, or no photographs are named anywhere.
        ConfigError: a setting in ``given`` differs from the run's.
    """
    saved = Run.read(folder)
    existing = checkpoints(folder / "checkpoints")
    if existing and not resume:
        raise DataError(
            f"{folder}: already holds a run, with checkpoints up to {existing[-1].stem}: "
            "go on with it by --resume, or choose another --out"
        )
    if existing and saved is None:
        raise DataError(f"{folder}: holds checkpoints but no {CONFIG_FILE}: it cannot be resumed")
    if not resume or saved is None:
        if not asked.data:
            raise DataError("no photographs named: give their folder with --data")
        return asked

    changed = [
        f"{name} is {getattr(saved.config, name)}, not {getattr(asked.config, name)}"
        for name in given
        if name not in LENGTH and getattr(saved.config, name) != getattr(asked.config, name)
    ]
    if changed:
        raise ConfigError(
            f"{folder}: this run was begun with other settings ({'; '.join(changed)}); leave them out to resume it, or "
            "begin a new run with another --out (--init starts it from exported weights)"
        )
    config = saved.config
    if "images" in given:
        config = replace(config, images=asked.config.images)
    elif "epochs" in given:
        config = replace(config, images=None, epochs=asked.config.epochs)
    return Run(config, asked.data or saved.data)


@dataclass(frozen=True)
class TrainedGenerator:
    """The averaged generator of a run's newest whole checkpoint, float32 on the CPU in evaluation mode."""

    generator: Generator
    config: TrainConfig
    step: int
    checkpoint: Path

    @property
    def images(self) -> int:
        """Photographs that it was trained on, repeats counted."""
        return self.step * self.config.batch_size


def load_trained(folder: Path) -> TrainedGenerator:
    """The averaged generator in the run folder ``folder``.

    Raises:
        DataError: no checkpoint, or none that is whole.
    """
    found = checkpoints(folder / "checkpoints")
    if not found:
        raise DataError(f"{folder}: not a run folder with checkpoints")
    reasons: list[str] = []
    for path in reversed(found):
        try:
            state = load_checkpoint(path)
            return _from_state(path, state)
        except (DataError, ConfigError) as error:
            reasons.append(str(error))
    raise DataError(f"{folder}: no checkpoint can be used: {'; '.join(reasons)}")


def _from_state(path: Path, state: dict[str, Any]) -> TrainedGenerator:
    try:
        config = TrainConfig.from_dict(state["config"])
        generator = Generator(config.generator)
        generator.load_state_dict(state["ema"])
        return TrainedGenerator(generator.eval(), config, int(state["step"]), path)
    except (KeyError, RuntimeError, TypeError) as error:
        raise DataError(f"{path}: not a checkpoint of a run ({error})") from error
