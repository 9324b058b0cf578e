"""Which photographs make up which batch, as a function of seed and step alone, and drawn ahead of the step.

Nothing here holds a random state, so resuming is exact and any number of processes draw the same batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch
from torch import Tensor

from archivecolor.errors import DataError


def hash_seed(*parts: int) -> int:
    """A 63-bit seed that differs for different ``parts``."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def split_photos(names: Sequence[str], val_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices for training and for validation.

    Those whose name hashes lowest are held out, so that photographs added to or lost from the data hardly move any
    other across the split. At least one stays for training.
    """

    def rank(i: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{names[i]}".encode(errors="surrogateescape")).digest()

    held_out = min(len(names) - 1, round(len(names) * val_fraction))
    order = sorted(range(len(names)), key=rank)
    return sorted(order[held_out:]), sorted(order[:held_out])


class Sampler:
    """Photograph indices of each step's batch, the whole of it over all processes.

    ``balance`` 0 visits each photograph once an epoch (a last, smaller batch is left out); above that, an epoch draws
    with replacement, a photograph of a folder of n with a weight of n^-balance.

    Raises:
        DataError: fewer photographs than a batch.
    """

    def __init__(
        self, indices: Sequence[int], groups: Sequence[str], *, batch_size: int, balance: float, seed: int
    ) -> None:
        if batch_size > len(indices):
            raise DataError(
                f"a batch of {batch_size} needs at least as many photographs to train on, and there are "
                f"{len(indices)}: choose a smaller --batch-size, or add photographs"
            )
        self.indices = torch.as_tensor(indices)
        self.batch_size, self.seed = batch_size, seed
        self._drawn: tuple[int, Tensor] | None = None
        self.weights: Tensor | None = None
        if balance > 0:
            sizes: dict[str, int] = {}
            for i in indices:
                sizes[groups[i]] = sizes.get(groups[i], 0) + 1
            self.weights = torch.tensor([sizes[groups[i]] ** -balance for i in indices], dtype=torch.float64)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the data."""
        return len(self.indices) // self.batch_size

    def batch(self, step: int) -> list[int]:
        """Photograph indices of the batch that ``step`` (from 0) trains on."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        drawn = self._drawn  # other threads ask for other epochs
        if drawn is None or drawn[0] != epoch:
            self._drawn = drawn = (epoch, self._draw(epoch))
        return [int(i) for i in drawn[1][start : start + self.batch_size]]

    def _draw(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(hash_seed(self.seed, 1, epoch))
        if self.weights is None:
            return self.indices[torch.randperm(len(self.indices), generator=generator)]
        return self.indices[torch.multinomial(self.weights, len(self.indices), replacement=True, generator=generator)]


class Draws:
    """Random numbers for one process's share of a batch.

    They are drawn for the whole batch and then shared out, so that a photograph gets the same ones however many
    processes there are.
    """

    def __init__(self, seed: int, batch_size: int, share: slice, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._batch_size, self._share, self._device = batch_size, share, device

    def uniform(self, *shape: int) -> Tensor:
        """(share, *shape) float32, 0..1."""
        return torch.rand(self._batch_size, *shape, generator=self._generator, device=self._device)[self._share]

    def normal(self, *shape: int) -> Tensor:
        """(share, *shape) float32, mean 0 and deviation 1."""
        return torch.randn(self._batch_size, *shape, generator=self._generator, device=self._device)[self._share]


class Prefetcher:
    """Fetches a step's photographs in a thread while the step before computes.

    Use as a context manager. An error in the thread is raised by `get`.
    """

    def __init__(self, fetch: Callable[[int], Tensor], ahead: int = 2) -> None:
        self._fetch, self._ahead = fetch, ahead
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._waiting: dict[int, Future[Tensor]] = {}

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def get(self, step: int) -> Tensor:
        """What ``fetch(step)`` returns; the following steps are put in hand."""
        for ahead in range(step, step + 1 + self._ahead):
            if ahead not in self._waiting:
                self._waiting[ahead] = self._pool.submit(self._fetch, ahead)
        return self._waiting.pop(step).result()
