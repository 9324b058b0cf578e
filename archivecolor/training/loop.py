"""The training loop (paper III-A, eq. 3 to 6): the discriminators' step, then the generator's, and what surrounds them."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from archivecolor import color
from archivecolor.config import PRESETS, TrainConfig
from archivecolor.errors import ConfigError, DataError
from archivecolor.evaluation.metrics import Scores
from archivecolor.networks import Generator, MultiScaleDiscriminator
from archivecolor.training.augment import make_batch
from archivecolor.training.checkpoints import (
    MetricsLog,
    checkpoints,
    load_checkpoint,
    save_checkpoint,
    write_json,
)
from archivecolor.training.data import PhotoSet, Sampler, hash_seed, split_photos
from archivecolor.training.losses import adversarial_loss, discriminator_loss, l1_loss

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """How a run goes about its work; nothing here changes what is learned."""

    log_every: int = 20
    validate_every: int = 1000
    checkpoint_every: int = 1000
    keep: int = 2


class Trainer:
    """Generator, discriminators, their optimisers and the averaged generator, as one state to save and resume."""

    def __init__(
        self, config: TrainConfig, photos: PhotoSet, device: torch.device, amp_dtype: torch.dtype | None
    ) -> None:
        preset = PRESETS[config.preset]
        if config.size_px % preset.generator.size_multiple_px:
            raise ConfigError(f"the size must be a multiple of {preset.generator.size_multiple_px} px")
        self.config, self.photos, self.device, self.amp_dtype = config, photos, device, amp_dtype
        torch.manual_seed(config.seed)
        layout = torch.channels_last
        self.generator = Generator(preset.generator).to(device, memory_format=layout)  # type: ignore[call-overload]
        self.discriminator = MultiScaleDiscriminator(preset.discriminator).to(device, memory_format=layout)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.generator).requires_grad_(False).eval()
        betas = (config.beta1, config.beta2)
        self.optimiser_g = torch.optim.Adam(self.generator.parameters(), config.lr_g, betas, fused=True)
        self.optimiser_d = torch.optim.Adam(self.discriminator.parameters(), config.lr_d, betas, fused=True)
        self.step = 0

        self.train_indices, self.val_indices = split_photos(len(photos), config.val_fraction, config.seed)
        self.sampler = Sampler(
            self.train_indices,
            photos.groups,
            batch_size=config.batch_size,
            balance=config.balance,
            seed=config.seed,
        )

    @property
    def total_steps(self) -> int:
        """Length of the whole run."""
        if self.config.images is not None:
            return math.ceil(self.config.images / self.config.batch_size)
        return self.config.epochs * self.sampler.steps_per_epoch

    # -- one step ------------------------------------------------------------------------------------------------

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Lightness and chroma that ``step`` trains on, a function of the seed and ``step`` alone."""
        photos = self.photos.fetch(self.sampler.batch(step), self.device)
        random = torch.Generator(self.device).manual_seed(hash_seed(self.config.seed, 2, step))
        l_norm, ab_norm = make_batch(
            photos,
            self.config.size_px,
            augment=self.config.augment,
            film=self.config.film_look,
            generator=random,
        )
        return (
            l_norm.contiguous(memory_format=torch.channels_last),
            ab_norm.contiguous(memory_format=torch.channels_last),
        )

    def train_step(self) -> dict[str, Tensor]:
        """One update of the discriminators and one of the generator; returns each loss term by name, 0-d tensors."""
        config = self.config
        adversarial = self.step * config.batch_size >= config.pretrain_images
        self._schedule_learning_rates()
        l_norm, true_ab = self.batch(self.step)

        with self._autocast():
            ab = self.generator(l_norm)
        terms = {"l1": l1_loss(ab, true_ab)}
        loss_g = config.l1_weight * terms["l1"]

        if adversarial:
            with self._autocast():
                real = self.discriminator(l_norm, true_ab)
                fake = self.discriminator(l_norm, ab.detach())
            terms["d_real"], terms["d_fake"] = discriminator_loss(real, fake, config.gan_loss)
            (terms["d_real"] + terms["d_fake"]).backward()  # type: ignore[no-untyped-call]
            self.optimiser_d.step()
            self.optimiser_d.zero_grad(set_to_none=True)

            self.discriminator.requires_grad_(False)
            with self._autocast():
                fake = self.discriminator(l_norm, ab)
            terms["g_adversarial"] = adversarial_loss(fake, config.gan_loss)
            loss_g = loss_g + config.adversarial_weight * terms["g_adversarial"]

        loss_g.backward()  # type: ignore[no-untyped-call]
        self.discriminator.requires_grad_(True)
        self.optimiser_g.step()
        self.optimiser_g.zero_grad(set_to_none=True)
        self._update_ema()
        self.step += 1
        return {name: term.detach() for name, term in terms.items()}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)

    def _schedule_learning_rates(self) -> None:
        factor = 1.0
        if self.config.lr_schedule == "linear":
            half = self.total_steps / 2
            factor = min(1.0, max(0.0, (self.total_steps - self.step) / half))
        for optimiser, lr in ((self.optimiser_g, self.config.lr_g), (self.optimiser_d, self.config.lr_d)):
            for group in optimiser.param_groups:
                group["lr"] = lr * factor

    @torch.no_grad()
    def _update_ema(self) -> None:
        """Move the averaged generator; the average is short at first, so that it forgets the random start."""
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        averaged, current = list(self.ema.parameters()), list(self.generator.parameters())
        torch._foreach_lerp_(averaged, current, 1 - decay)
        for mine, theirs in zip(self.ema.buffers(), self.generator.buffers(), strict=True):
            mine.copy_(theirs)

    # -- validation ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self, most: int = 256) -> dict[str, float]:
        """Scores of the averaged generator on (at most ``most`` of) the held-out photographs, without film look."""
        scores = Scores()
        indices = self.val_indices[:: max(1, len(self.val_indices) // most)][:most]
        for start in range(0, len(indices), self.config.batch_size):
            photos = self.photos.fetch(indices[start : start + self.config.batch_size], self.device)
            l_norm, true_ab = make_batch(photos, self.config.size_px)
            with self._autocast():
                ab = self.ema(l_norm.contiguous(memory_format=torch.channels_last))
            L = (l_norm + 1) * color.L_SCALE
            scores.update(
                torch.cat([L, color.denormalise_ab(ab.float())], 1),
                torch.cat([L, color.denormalise_ab(true_ab)], 1),
            )
        return scores.summary()

    # -- saving and resuming -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs, of plain containers and tensors; randomness is a function of seed and step."""
        return {
            "config": self.config.to_dict(),
            "step": self.step,
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser_g": self.optimiser_g.state_dict(),
            "optimiser_d": self.optimiser_d.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state; raises `DataError` when it does not fit the networks."""
        try:
            for name in ("generator", "discriminator", "ema", "optimiser_g", "optimiser_d"):
                getattr(self, name).load_state_dict(state[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise DataError(f"the checkpoint does not fit this preset ({error})") from error
        self.step = state["step"]


def train(
    trainer: Trainer,
    run: Path,
    options: RunOptions,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> bool:
    """Train until the run's length or until ``should_stop``; everything worth keeping goes into the folder ``run``.

    Starts from the newest readable checkpoint in ``run`` where there is one.

    Returns:
        Whether the run is complete (False: stopped, with a checkpoint written).

    Raises:
        DataError: a loss is no longer finite; the last checkpoint is from before.
    """
    run.mkdir(parents=True, exist_ok=True)
    metrics = MetricsLog(run / "metrics.jsonl")
    folder = run / "checkpoints"
    if existing := checkpoints(folder):
        trainer.load_state_dict(load_checkpoint(existing[-1]))
    metrics.rewind(trainer.step)
    write_json(run / "config.json", trainer.config.to_dict())

    since, images = time.perf_counter(), 0
    while trainer.step < trainer.total_steps and not should_stop():
        terms = trainer.train_step()
        images += trainer.config.batch_size
        last = trainer.step == trainer.total_steps
        if trainer.step % options.log_every == 0 or last:
            values = {name: float(term) for name, term in terms.items()}
            if not all(map(math.isfinite, values.values())):
                raise DataError(f"{run}: a loss is no longer finite at step {trainer.step}: {values}")
            values["images_per_s"] = images / (time.perf_counter() - since)
            metrics.append({"step": trainer.step, **values})
            if on_step:
                on_step(trainer.step, values)
            since, images = time.perf_counter(), 0
        if trainer.val_indices and (trainer.step % options.validate_every == 0 or last):
            metrics.append({"step": trainer.step, "validation": trainer.validate()})
        if trainer.step % options.checkpoint_every == 0 and not last:
            save_checkpoint(folder, trainer.step, trainer.state_dict(), keep=options.keep)
    save_checkpoint(folder, trainer.step, trainer.state_dict(), keep=options.keep)
    return trainer.step >= trainer.total_steps
