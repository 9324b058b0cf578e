"""What each process of the two-process test runs: a few steps of training, its state saved beside its rank."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from archivecolor.config import RunOptions, TrainConfig
from archivecolor.training.distributed import Processes
from archivecolor.training.loop import train
from archivecolor.training.trainer import Trainer
from tests.training.conftest import make_tiny_photos

STEPS = 4


def make_trainer(processes: Processes | None = None, preset: str = "ibn-sn-md") -> Trainer:
    config = TrainConfig(
        preset=preset,
        size_px=96,
        batch_size=4,
        images=4 * STEPS,
        generator_widths=(8, 12, 12),
        discriminator_widths=(8, 8, 8, 8),
        val_fraction=0.25,
        augment=True,
        film_look=True,
        pretrain_images=4,
    )
    return Trainer(config, make_tiny_photos(120), torch.device("cpu"), processes=processes)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, preset = Path(sys.argv[1]), sys.argv[2]
    with Processes.from_environment() as processes:
        trainer = make_trainer(processes, preset)
        assert trainer.processes.world_size == 2 and trainer.batches.fetch(0).shape[0] == 2
        stop = folder / "stop"
        complete = train(
            trainer,
            folder / "run",
            RunOptions(log_every=1, validate_every=0, sample_every=0, checkpoint_every=2),
            # Only the second process is asked to stop; both must, at the same step.
            should_stop=lambda: stop.exists() and processes.rank == 1 and trainer.step >= 3,
        )
        torch.save((complete, trainer.state_dict()), folder / f"rank{processes.rank}.pt")
