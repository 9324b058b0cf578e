"""What each step of a run trains on, as a function of the seed and the step alone."""

from __future__ import annotations

import torch
from torch import Tensor

from archivecolor.config import TrainConfig
from archivecolor.training.augment import make_batch
from archivecolor.training.data import PhotoSet
from archivecolor.training.sampling import Draws, Sampler, hash_seed, split_photos

Batch = tuple[Tensor, Tensor]
"""``l_norm`` (N, 1, S, S) and ``ab_norm`` (N, 2, S, S), float32 on the device."""


class Batches:
    """A run's photographs, held out and trained on, and the batches that are drawn from the latter.

    Args:
        share: the rows of each batch that this process trains on; all of them by default.

    Raises:
        DataError: fewer photographs than a batch.
    """

    def __init__(self, config: TrainConfig, photos: PhotoSet, device: torch.device, share: slice | None = None) -> None:
        self.config, self.photos, self.device = config, photos, device
        self.share = share or slice(0, config.batch_size)
        self.train_indices, self.val_indices = split_photos(photos.names, config.val_fraction, config.seed)
        self.sampler = Sampler(
            self.train_indices, photos.groups, batch_size=config.batch_size, balance=config.balance, seed=config.seed
        )

    def fetch(self, step: int) -> Tensor:
        """This process's photographs of ``step``, (n, S, S, 3) uint8 on the device."""
        return self.photos.fetch(self.sampler.batch(step)[self.share], self.device)

    def batch(self, step: int, photos: Tensor | None = None) -> Batch:
        """Lightness and chroma that ``step`` trains on; ``photos`` where they are fetched already."""
        config = self.config
        draws = Draws(hash_seed(config.seed, 2, step), config.batch_size, self.share, self.device)
        photos = self.fetch(step) if photos is None else photos
        return make_batch(photos, config.size_px, augment=config.augment, film=config.film_look, draws=draws)
