"""Averages of weights: of a generator over its training, which is scored and exported, and of two generators."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from archivecolor.errors import ConfigError
from archivecolor.networks import Generator
from archivecolor.networks.blocks import iterate_power
from archivecolor.training.batches import Batches

_POWER_ITERATIONS = 20
_CALIBRATION_PHOTOS = 512


@torch.no_grad()
def follow(averaged: nn.Module, current: nn.Module, decay: float) -> None:
    """Move the parameters of ``averaged`` towards ``current``'s; buffers are copied."""
    torch._foreach_lerp_(list(averaged.parameters()), list(current.parameters()), 1 - decay)
    mine, theirs = list(averaged.buffers()), list(current.buffers())
    if mine:
        torch._foreach_copy_(mine, theirs)


@torch.no_grad()
def blend(generator: Generator, other: Generator, share: float) -> None:
    """Move the weights of ``generator`` towards ``other``'s, 0 not at all to 1 all the way.

    Between a network trained on L1 and the same one trained adversarially lies every degree of daring (Wang et al.,
    *ESRGAN*, ECCV workshops 2018, section 3.4, there called network interpolation). Its batch norms are to be
    calibrated afterwards.

    Raises:
        ConfigError: the two have different shapes.
    """
    if generator.config != other.config:
        raise ConfigError(f"networks of different shapes cannot be blended: {generator.config}, {other.config}")
    torch._foreach_lerp_(list(generator.parameters()), list(other.parameters()), share)
    for _ in range(_POWER_ITERATIONS):
        iterate_power(generator)


def calibrate_batch_norm(averaged: nn.Module, batches: Batches, amp_dtype: torch.dtype | None = None) -> None:
    """Give the batch norms of ``averaged`` the statistics that its own weights have on the first of ``batches``.

    Those copied from the generator belong to other weights than the averaged ones (Izmailov et al., *Averaging
    Weights Leads to Wider Optima and Better Generalization*, UAI 2018, section 3.2).
    """
    share = len(range(batches.config.batch_size)[batches.share])
    steps = range(math.ceil(_CALIBRATION_PHOTOS / share))
    device_type = batches.device.type
    with torch.autocast(device_type, dtype=amp_dtype, enabled=amp_dtype is not None):
        update_bn((batches.batch(step)[0] for step in steps), averaged)
