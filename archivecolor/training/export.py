"""A run's averaged generator as shipping weights, and how far their int8 convolutions move its colours."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from archivecolor import __version__, color
from archivecolor.config import TrainConfig
from archivecolor.errors import DataError
from archivecolor.training.augment import make_batch
from archivecolor.training.averaging import blend, calibrate_batch_norm
from archivecolor.training.batches import Batches
from archivecolor.training.checkpoints import MetricsLog
from archivecolor.training.data import PhotoSet
from archivecolor.training.runs import TrainedGenerator, load_start, load_trained
from archivecolor.training.sampling import split_photos
from archivecolor.weights import load_generator, save_generator

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Exported:
    """What `export_run` wrote."""

    path: Path
    sha256: str
    trained: TrainedGenerator


def export_run(
    run: Path,
    path: Path,
    notes: dict[str, str] | None = None,
    *,
    towards: Path | None = None,
    share: float = 0.5,
    photos: PhotoSet | None = None,
    device: torch.device = _CPU,
) -> Exported:
    """Write the averaged generator of the newest checkpoint in ``run`` as safetensors weights.

    Its weights are blended with those of the file or run ``towards``, where one is named, so that they lie ``share``
    of the way to it (`averaging.blend`). With the run's ``photos`` the batch norms are calibrated first, on
    ``device``, as they are for a validation. The metadata says how it was trained (preset, settings, photographs
    seen) and how it scored when last validated.

    Raises:
        DataError: no usable checkpoint, or ``path`` does not name a safetensors file.
        ConfigError: ``towards`` holds a network of another shape, or ``photos`` are too few to take statistics of.
        WeightsError: ``path`` cannot be written.
    """
    if path.suffix != ".safetensors":
        raise DataError(f"{path}: weights are safetensors files; name it {path.stem}.safetensors")
    trained = load_trained(run)
    if towards is not None:
        other = load_start(towards).generator
        assert other is not None
        blend(trained.generator, other, share)
        notes = {**(notes or {}), "blended": f"{share} of the way to {towards.name}"}
    if photos is not None:
        trained.generator.to(device)
        calibrate_batch_norm(trained.generator, Batches(_fitting(trained.config, photos), photos, device))
    scores = [r for r in MetricsLog(run / "metrics.jsonl").read() if "validation" in r and r["step"] <= trained.step]
    if towards is not None:
        scores = []  # are those of another network
    metadata = {
        "archivecolor": __version__,
        "preset": trained.config.preset,
        "step": str(trained.step),
        "images": str(trained.images),
        "train_config": json.dumps(trained.config.to_dict()),
        **({"validation": json.dumps(scores[-1])} if scores else {}),
        **(notes or {}),
    }
    return Exported(path, save_generator(trained.generator, path, metadata), trained)


def _fitting(config: TrainConfig, photos: PhotoSet) -> TrainConfig:
    """``config`` with a batch that these photographs fill."""
    to_train_on = len(split_photos(photos.names, config.val_fraction, config.seed)[0])
    return replace(config, batch_size=min(config.batch_size, to_train_on))


@torch.no_grad()
def quantisation_error(exported: Exported, photos: PhotoSet, device: torch.device, most: int = 64) -> float:
    """Mean |difference| of a and b, in Lab units, between the exported weights and the exact ones.

    Measured on (at most ``most`` of) the photographs that the run held out, or on its training photographs where it
    held out none.
    """
    config = exported.trained.config
    train_indices, val_indices = split_photos(photos.names, config.val_fraction, config.seed)
    indices = (val_indices or train_indices)[:most]
    exact = exported.trained.generator.to(device)
    quantised = load_generator(exported.path).to(device)
    total = 0.0
    for start in range(0, len(indices), 8):
        several = indices[start : start + 8]
        l_norm, _ = make_batch(photos.fetch(several, device), config.size_px)
        difference = color.denormalise_ab(exact(l_norm) - quantised(l_norm)).abs().mean()
        total += float(difference) * len(several)
    return total / len(indices)
