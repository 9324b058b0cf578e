"""Run folders: what a run was begun with, how it may be continued, and the generator that it has trained."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from archivecolor import __version__
from archivecolor.config import RunOptions, TrainConfig
from archivecolor.errors import ConfigError, DataError, WeightsError
from archivecolor.networks import Generator, MultiScaleDiscriminator
from archivecolor.training.checkpoints import checkpoints, load_checkpoint, write_json, writing
from archivecolor.training.trainer import Start
from archivecolor.weights import find_weights, load_generator

CONFIG_FILE = "config.json"
LENGTH = ("images", "epochs")
"""The settings that a resumed run may change."""


@dataclass(frozen=True)
class Run:
    """What ``config.json`` in a run folder says."""

    config: TrainConfig
    data: tuple[Path, ...]
    options: RunOptions = field(default_factory=RunOptions)

    def write(self, folder: Path) -> None:
        """Write ``config.json``; raises `DataError` where the folder cannot be written."""
        record = {
            "archivecolor": __version__,
            "data": [str(path.resolve()) for path in self.data],
            "train": self.config.to_dict(),
            "options": asdict(self.options),
        }
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG_FILE, record)

    @classmethod
    def read(cls, folder: Path) -> Run | None:
        """The record in ``folder``, None where there is none; raises `DataError` if it is damaged."""
        path = folder / CONFIG_FILE
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_text())
            data = tuple(Path(folder) for folder in record["data"])
            return cls(TrainConfig.from_dict(record["train"]), data, RunOptions(**record.get("options", {})))
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            raise DataError(f"{path}: not the configuration of a run ({error})") from error


def begin_or_resume(folder: Path, asked: Run, given: Collection[str], *, resume: bool) -> Run:
    """What to train in ``folder``.

    Args:
        asked: what the command line and its defaults say.
        given: names of the settings and options that were asked for by name rather than by default.
        resume: go on with what is there, if anything is; what was asked for then holds, but what was learnt under one
            setting is not gone on with under another, but for its `LENGTH`.

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

    wanted = {name: getattr(asked.config, name) for name in _names(TrainConfig, given)}
    changed = [
        f"{name} is {getattr(saved.config, name)}, not {value}"
        for name, value in wanted.items()
        if name not in LENGTH and getattr(saved.config, name) != value
    ]
    if existing and changed:
        raise ConfigError(
            f"{folder}: this run was begun with other settings ({'; '.join(changed)}); leave them out to resume it, or "
            "begin a new run with another --out (--init starts it from what this one has learnt)"
        )
    if "epochs" in wanted and "images" not in wanted:
        wanted["images"] = None
    return Run(
        replace(saved.config, **wanted),
        asked.data or saved.data,
        replace(saved.options, **{name: getattr(asked.options, name) for name in _names(RunOptions, given)}),
    )


def _names(kind: type[TrainConfig] | type[RunOptions], given: Collection[str]) -> list[str]:
    """Fields of ``kind`` that are in ``given``."""
    return [entry.name for entry in fields(kind) if entry.name in given]


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


def load_start(path: Path) -> Start:
    """What ``--init`` names: exported weights, or a run folder, whose discriminators are taken over too.

    Of a run's newest whole checkpoint the averaged generator is taken; optimisers begin afresh.

    Raises:
        DataError: a folder without a checkpoint, or none that is whole.
        WeightsError: not a file of weights.
    """
    if not path.is_dir():
        try:
            weights = find_weights(path)
        except WeightsError as error:
            raise WeightsError(f"{path}: neither a run folder nor a .safetensors file; give one of them") from error
        return Start(load_generator(weights), source=str(path))
    trained = load_trained(path)
    discriminator = MultiScaleDiscriminator(trained.config.discriminator)
    discriminator.load_state_dict(load_checkpoint(trained.checkpoint)["discriminator"])
    return Start(trained.generator, discriminator, str(path))


def _from_state(path: Path, state: dict[str, Any]) -> TrainedGenerator:
    try:
        config = TrainConfig.from_dict(state["config"])
        generator = Generator(config.generator)
        generator.load_state_dict(state["ema"])
        return TrainedGenerator(generator.eval(), config, int(state["step"]), path)
    except (KeyError, RuntimeError, TypeError) as error:
        raise DataError(f"{path}: not a checkpoint of a run ({error})") from error
