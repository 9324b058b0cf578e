"""One training step of the paper (III-A, eq. 3 to 6), and the state that it moves."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from archivecolor import color
from archivecolor.config import TrainConfig
from archivecolor.errors import ConfigError, DataError
from archivecolor.evaluation.metrics import Scores
from archivecolor.networks import Generator, MultiScaleDiscriminator
from archivecolor.networks.blocks import iterate_power
from archivecolor.training.augment import make_batch
from archivecolor.training.data import PhotoSet
from archivecolor.training.distributed import Processes
from archivecolor.training.losses import adversarial_loss, discriminator_loss, l1_loss
from archivecolor.training.sampling import Draws, Sampler, hash_seed, split_photos

Batch = tuple[Tensor, Tensor]
"""``l_norm`` (N, 1, S, S) and ``ab_norm`` (N, 2, S, S), float32 on the device."""


class Trainer:
    """Generator, discriminators, their optimisers and the averaged generator: one state, stepped, saved and resumed.

    Args:
        amp_dtype: what autocast computes in; None for float32 throughout.
        processes: the processes that train together; this one alone by default.
        init: a generator to start from, of the configuration's shape.
        compile_networks: run generator and discriminators through torch.compile.

    Raises:
        ConfigError: ``init`` has another shape than ``config`` asks for, or the batch cannot be shared out.
        DataError: fewer photographs than a batch.
    """

    def __init__(
        self,
        config: TrainConfig,
        photos: PhotoSet,
        device: torch.device,
        amp_dtype: torch.dtype | None = None,
        *,
        processes: Processes | None = None,
        init: Generator | None = None,
        compile_networks: bool = False,
    ) -> None:
        if init is not None and init.config != config.generator:
            raise ConfigError(
                f"the weights to start from are of {init.config}, the run's generator is {config.generator}"
            )
        self.config, self.photos, self.device, self.amp_dtype = config, photos, device, amp_dtype
        self.processes = processes or Processes()
        self.share = self.processes.share(config.batch_size)

        torch.manual_seed(config.seed)
        self.generator = _place(init or Generator(config.generator), device).train()
        self.discriminator = _place(MultiScaleDiscriminator(config.discriminator), device)
        self.ema = copy.deepcopy(self.generator).requires_grad_(False).eval()
        self.generator = self.processes.synchronise_batch_norm(self.generator)
        self.discriminator = self.processes.synchronise_batch_norm(self.discriminator)
        betas = (config.beta1, config.beta2)
        self.optimiser_g = torch.optim.Adam(self.generator.parameters(), config.lr_g, betas, fused=True)
        self.optimiser_d = torch.optim.Adam(self.discriminator.parameters(), config.lr_d, betas, fused=True)
        if compile_networks:
            self.generator.compile()
            self.discriminator.compile()
        self._parallel_generator = self.processes.parallel(self.generator)
        self._parallel_discriminator = self.processes.parallel(self.discriminator)
        self.step = 0

        self.train_indices, self.val_indices = split_photos(photos.names, config.val_fraction, config.seed)
        self.sampler = Sampler(
            self.train_indices, photos.groups, batch_size=config.batch_size, balance=config.balance, seed=config.seed
        )

    @property
    def total_steps(self) -> int:
        """Length of the whole run."""
        if self.config.images is not None:
            return math.ceil(self.config.images / self.config.batch_size)
        return self.config.epochs * self.sampler.steps_per_epoch

    # -- one step ------------------------------------------------------------------------------------------------

    def fetch(self, step: int) -> Tensor:
        """This process's photographs of ``step``, (n, S, S, 3) uint8 on the device."""
        return self.photos.fetch(self.sampler.batch(step)[self.share], self.device)

    def batch(self, step: int, photos: Tensor | None = None) -> Batch:
        """Lightness and chroma that ``step`` trains on: a function of the seed and of ``step`` alone."""
        config = self.config
        draws = Draws(hash_seed(config.seed, 2, step), config.batch_size, self.share, self.device)
        photos = self.fetch(step) if photos is None else photos
        return make_batch(photos, config.size_px, augment=config.augment, film=config.film_look, draws=draws)

    def train_step(self, batch: Batch | None = None) -> dict[str, Tensor]:
        """One update of the discriminators and one of the generator; returns each loss term by name, 0-d tensors."""
        config = self.config
        self._schedule_learning_rates()
        l_norm, true_ab = self.batch(self.step) if batch is None else batch

        iterate_power(self.generator)
        with self._autocast():
            ab = self._parallel_generator(l_norm)
        terms = {"l1": l1_loss(ab, true_ab)}
        loss_g = config.l1_weight * terms["l1"]

        if self.step * config.batch_size >= config.pretrain_images:
            # Discriminators: true colour is real, the generator's is not; each at full weight (eq. 4).
            iterate_power(self.discriminator)
            with self._autocast():
                real = self._parallel_discriminator(l_norm, true_ab)
                fake = self._parallel_discriminator(l_norm, ab.detach())
            terms["d_real"], terms["d_fake"] = discriminator_loss(real, fake, config.gan_loss)
            (terms["d_real"] + terms["d_fake"]).backward()  # type: ignore[no-untyped-call]
            self.optimiser_d.step()
            self.optimiser_d.zero_grad(set_to_none=True)

            # Generator: to be taken for real by the discriminators, which are frozen (eq. 5).
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
        """Constant as in the paper, or falling linearly to nothing over the second half of the run."""
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

    # -- what the run is judged by -------------------------------------------------------------------------------

    @torch.no_grad()
    def colourise(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """The averaged generator's colours for photographs as they are, without crops or film look, and the truth.

        Returns:
            Two (N, 3, S, S) float32 tensors of Lab.
        """
        l_norm, true_ab = make_batch(self.photos.fetch(indices, self.device), self.config.size_px)
        with self._autocast():
            ab = self.ema(l_norm)
        L = (l_norm + 1) * color.L_SCALE
        return torch.cat([L, color.denormalise_ab(ab.float())], 1), torch.cat([L, color.denormalise_ab(true_ab)], 1)

    def validate(self, most: int = 256) -> dict[str, float]:
        """Scores of the averaged generator on (at most ``most`` of) the held-out photographs."""
        scores = Scores()
        indices = self.val_indices[:: max(1, len(self.val_indices) // most)][:most]
        several = len(range(self.config.batch_size)[self.share])
        for start in range(0, len(indices), several):
            scores.update(*self.colourise(indices[start : start + several]))
        return scores.summary()

    # -- saving and resuming -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs, of plain containers and tensors; randomness is a function of seed and step."""
        return {
            "config": self.config.to_dict(),
            "step": self.step,
            "photos": self.photos.fingerprint,
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
            self.step = int(state["step"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise DataError(f"the checkpoint does not fit this configuration ({error})") from error

    def is_finite(self) -> bool:
        """Whether every parameter of the networks is a finite number."""
        parameters = [*self.generator.parameters(), *self.discriminator.parameters()]
        return bool(torch.stack([p.detach().isfinite().all() for p in parameters]).all())


def _place(network: nn.Module, device: torch.device) -> Any:
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
