"""One training step of the paper (III-A, eq. 3 to 6), and the state that it moves."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
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
from archivecolor.training.averaging import calibrate_batch_norm, follow
from archivecolor.training.batches import Batch, Batches
from archivecolor.training.data import PhotoSet
from archivecolor.training.distributed import Processes
from archivecolor.training.graphs import GraphedUpdate
from archivecolor.training.losses import adversarial_loss, discriminator_loss, distribution_loss, l1_loss


@dataclass(frozen=True)
class Start:
    """Networks that a new run begins with, where it does not begin with random ones."""

    generator: Generator | None = None
    discriminator: MultiScaleDiscriminator | None = None
    source: str = "the networks to start from"


class Trainer:
    """Generator, discriminators, their optimisers and the averaged generator: one state, stepped, saved and resumed.

    Args:
        amp_dtype: what autocast computes in; None for float32 throughout.
        processes: the processes that train together; this one alone by default.
        init: networks to start from, of the configuration's shapes; without discriminators those begin afresh.
        compile_networks: run generator and discriminators through torch.compile.
        cuda_graph: replay the step as a CUDA graph, where there is one process with a CUDA device.

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
        init: Start | None = None,
        compile_networks: bool = False,
        cuda_graph: bool = False,
    ) -> None:
        init = init or Start()
        for network, wanted in ((init.generator, config.generator), (init.discriminator, config.discriminator)):
            if network is not None and network.config != wanted:
                raise ConfigError(
                    f"{init.source}: {network.config}, but the run is for {wanted}; choose --preset, "
                    "--generator-widths and --discriminator-widths that fit"
                )
        self.config, self.photos, self.device, self.amp_dtype = config, photos, device, amp_dtype
        self.processes = processes or Processes()
        self.batches = Batches(config, photos, device, self.processes.share(config.batch_size))

        torch.manual_seed(config.seed)
        self.generator = _place(init.generator or Generator(config.generator), device).train()
        self.discriminator = _place(init.discriminator or MultiScaleDiscriminator(config.discriminator), device)
        self.ema = copy.deepcopy(self.generator).requires_grad_(False).eval()
        self.generator = self.processes.synchronise_batch_norm(self.generator)
        self.discriminator = self.processes.synchronise_batch_norm(self.discriminator)
        self.optimiser_g = self._optimiser(self.generator, config.lr_g)
        self.optimiser_d = self._optimiser(self.discriminator, config.lr_d)
        if compile_networks:
            self.generator.compile()
            self.discriminator.compile()
        self._parallel_generator = self.processes.parallel(self.generator)
        self._parallel_discriminator = self.processes.parallel(self.discriminator)
        graphed = cuda_graph and device.type == "cuda" and self.processes.world_size == 1 and not compile_networks
        self._update = GraphedUpdate(self._compute_update, device) if graphed else self._compute_update
        self.step = 0
        self._calibrated_step: int | None = None

    def _optimiser(self, network: nn.Module, lr: float) -> torch.optim.Adam:
        """Adam, on CUDA with all of its state on the device, as a CUDA graph needs it."""
        betas, on_cuda = (self.config.beta1, self.config.beta2), self.device.type == "cuda"
        rate = torch.tensor(lr, device=self.device) if on_cuda else lr
        return torch.optim.Adam(network.parameters(), rate, betas, fused=True, capturable=on_cuda)

    @property
    def total_steps(self) -> int:
        """Length of the whole run."""
        if self.config.images is not None:
            return math.ceil(self.config.images / self.config.batch_size)
        return self.config.epochs * self.batches.sampler.steps_per_epoch

    # -- one step ------------------------------------------------------------------------------------------------

    def train_step(self, batch: Batch | None = None) -> dict[str, Tensor]:
        """One update of the discriminators and one of the generator; returns each loss term by name, 0-d tensors."""
        self._schedule_learning_rates()
        adversarial = self.step * self.config.batch_size >= self.config.pretrain_images
        terms = self._update(self.batches.batch(self.step) if batch is None else batch, adversarial)
        follow(self.ema, self.generator, self._ema_decay)
        self.step += 1
        return terms

    def _compute_update(self, batch: Batch, adversarial: bool) -> dict[str, Tensor]:
        """What is the same at every step, and free of all that a CUDA graph cannot hold."""
        config = self.config
        l_norm, true_ab = batch

        iterate_power(self.generator)
        with self._autocast():
            ab = self._parallel_generator(l_norm)
        terms = {"l1": l1_loss(ab, true_ab)}
        loss_g = config.l1_weight * terms["l1"]
        if config.distribution_weight:
            terms["distribution"] = distribution_loss(l_norm, ab, true_ab)
            loss_g = loss_g + config.distribution_weight * terms["distribution"]

        if adversarial:
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
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(lr * factor)
                else:
                    group["lr"] = lr * factor

    @property
    def _ema_decay(self) -> float:
        """The average is short at first, so that it forgets the random start."""
        return min(self.config.ema, (1 + self.step) / (10 + self.step))

    # -- what the run is judged by -------------------------------------------------------------------------------

    def calibrate(self) -> None:
        """Give the averaged generator batch norms of its own (`calibrate_batch_norm`), once a step at most."""
        if self._calibrated_step != self.step:
            calibrate_batch_norm(self.ema, self.batches, self.amp_dtype)
            self._calibrated_step = self.step

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
        self.calibrate()
        held_out = self.batches.val_indices
        indices = held_out[:: max(1, len(held_out) // most)][:most]
        several = len(range(self.config.batch_size)[self.batches.share])
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
            for name in ("generator", "discriminator", "ema"):
                getattr(self, name).load_state_dict(state[name])
            for name in ("optimiser_g", "optimiser_d"):
                _load_optimiser(getattr(self, name), state[name])
            self.step = int(state["step"])
            self._calibrated_step = None
        except (KeyError, RuntimeError, ValueError) as error:
            raise DataError(f"the checkpoint does not fit this configuration ({error})") from error

    def is_finite(self) -> bool:
        """Whether every parameter of the networks is a finite number."""
        parameters = [*self.generator.parameters(), *self.discriminator.parameters()]
        return bool(torch.stack([p.detach().isfinite().all() for p in parameters]).all())


def _load_optimiser(optimiser: torch.optim.Adam, state: dict[str, Any]) -> None:
    """Take up its moments; the learning rate is the schedule's, and where it lives is this device's affair."""
    own = [{name: group[name] for name in ("lr", "capturable")} for group in optimiser.param_groups]
    optimiser.load_state_dict(state)
    for group, values in zip(optimiser.param_groups, own, strict=True):
        group.update(values)


def _place(network: nn.Module, device: torch.device) -> Any:
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
