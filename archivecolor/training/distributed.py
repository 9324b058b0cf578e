"""Several processes training as one: started by ``torchrun``, joined by torch.distributed.

`Processes` answers every question that the loop has about them; with a single process each answer is trivial and
torch.distributed is not touched. Collectives on the host go through gloo, those on GPUs through nccl.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from archivecolor.errors import ConfigError

Value = TypeVar("Value")

# Rank 0 decodes photographs and validates while the others wait for it, which can take long.
_TIMEOUT = timedelta(hours=4)
_JOIN_TIMEOUT = timedelta(minutes=15)
"""One that has not come by then will not come."""


class Processes:
    """The processes of a run: how many, which one this is, and what they do together.

    Use as a context manager, which leaves the process group at the end.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.world_size, self.local_rank = rank, world_size, local_rank

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Processes:
        """Join the group that ``torchrun`` describes in the environment; a lone process where it describes none.

        Raises:
            ConfigError: the description is incomplete, or the group cannot be joined.
        """
        if int(environment.get("WORLD_SIZE", "1")) == 1:
            return cls()
        try:
            rank, world_size, local_rank = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        except (KeyError, ValueError) as error:
            raise ConfigError(f"$WORLD_SIZE is set but {error} is not: start several processes by torchrun") from error
        try:
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
            store, rank, world_size = next(rendezvous("env://", rank, world_size, timeout=_JOIN_TIMEOUT))
            store.set_timeout(_TIMEOUT)
            dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=_TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"cannot join the process group of torchrun: {error}") from error
        return cls(rank, world_size, local_rank)

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this is the process that logs, validates and saves."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This process's rows of a batch of ``batch_size`` photographs over all processes.

        Raises:
            ConfigError: the batch does not divide evenly.
        """
        each, left_over = divmod(batch_size, self.world_size)
        if left_over:
            raise ConfigError(
                f"a batch of {batch_size} cannot be shared by {self.world_size} processes: "
                f"choose a multiple of {self.world_size}"
            )
        return slice(self.rank * each, (self.rank + 1) * each)

    def device_name(self, chosen: str) -> str:
        """The device of this process: its own GPU where ``chosen`` is ``cuda``, or ``auto`` on a machine with GPUs.

        Raises:
            ConfigError: one GPU for several processes.
        """
        if self.world_size == 1 or not (chosen.startswith("cuda") or (chosen == "auto" and torch.cuda.is_available())):
            return chosen
        if ":" in chosen:
            raise ConfigError(f"several processes cannot share {chosen}: --device cuda gives each a GPU of its own")
        if self.local_rank >= (gpus := torch.cuda.device_count()):
            raise ConfigError(f"more processes than the {gpus} GPUs of this machine: lower --nproc-per-node")
        return f"cuda:{self.local_rank}"

    def parallel(self, module: nn.Module) -> nn.Module:
        """``module`` so that its backward pass averages gradients over the processes; itself if there is only one."""
        if self.world_size == 1:
            return module
        device = next(module.parameters()).device
        parallel = DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)
        parallel.broadcast_buffers = False  # equal by construction; the argument's name differs between torch releases
        return parallel

    def synchronise_batch_norm(self, module: nn.Module) -> nn.Module:
        """``module`` with batch norms that take their statistics over all processes, under unchanged names."""
        if self.world_size == 1:
            return module
        if next(module.parameters()).device.type == "cuda":
            converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
            return converted
        for parent in list(module.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.BatchNorm2d):
                    setattr(parent, name, CrossProcessBatchNorm2d.from_local(child))
        return module

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes of a small tensor, on the CPU."""
        values = values.detach().cpu()
        if self.world_size > 1:
            dist.all_reduce(values)
            values /= self.world_size
        return values

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process: all of them get the same answer at the same step."""
        if self.world_size == 1:
            return flag
        value = torch.tensor(int(flag))
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value)

    def wait(self) -> None:
        """Wait until every process is here."""
        self.any(False)

    def from_first(self, value: Value) -> Value:
        """What the first process passed, in every process; small plain objects only."""
        if self.world_size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        received: Value = box[0]
        return received


class CrossProcessBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with statistics over equal batches in all processes, on any device that gloo or nccl reduces.

    `torch.nn.SyncBatchNorm` runs on GPUs only. Mean first, then variance around it, as one process would.
    """

    @classmethod
    def from_local(cls, norm: nn.BatchNorm2d) -> CrossProcessBatchNorm2d:
        """One with the parameters and the statistics of ``norm``."""
        assert norm.momentum is not None
        mine = cls(norm.num_features, norm.eps, norm.momentum)
        mine.load_state_dict(norm.state_dict())
        return mine.to(norm.weight.device).train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float()
            processes = dist.get_world_size()
            mean = _SumOverProcesses.apply(wide.mean(dim=(0, 2, 3))) / processes
            centred = wide - mean.view(1, -1, 1, 1)
            var = _SumOverProcesses.apply(centred.square().mean(dim=(0, 2, 3))) / processes
            with torch.no_grad():
                count = processes * x.numel() // x.shape[1]
                self.get_buffer("num_batches_tracked").add_(1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * count / max(1, count - 1), self.momentum)
            gain = self.weight * torch.rsqrt(var + self.eps)
            normalised: Tensor = centred * gain.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
            return normalised.to(x.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed
