"""The average of a generator over its training, which is what is scored and exported."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from archivecolor.training.batches import Batches

_CALIBRATION_PHOTOS = 512


@torch.no_grad()
def follow(averaged: nn.Module, current: nn.Module, decay: float) -> None:
    """Move the parameters of ``averaged`` towards ``current``'s; buffers are copied."""
    torch._foreach_lerp_(list(averaged.parameters()), list(current.parameters()), 1 - decay)
    mine, theirs = list(averaged.buffers()), list(current.buffers())
    if mine:
        torch._foreach_copy_(mine, theirs)


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
