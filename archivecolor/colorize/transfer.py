"""Code values between numpy, 8 or 16 bits each, and the engine's device: one copy each way a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Codes = npt.NDArray[Any]


def upload(planes: Sequence[Codes], device: torch.device) -> Tensor:
    """(N, H, W) code values on ``device``, of N planes uint8 or uint16 (H, W): uint8, or int32 to compute in."""
    is_8_bit = planes[0].dtype == np.uint8
    shape = (len(planes), *planes[0].shape)
    staged = torch.empty(shape, dtype=torch.uint8 if is_8_bit else torch.int16, pin_memory=device.type == "cuda")
    np.stack([plane.view(staged.numpy().dtype) for plane in planes], out=staged.numpy())
    luma = staged.to(device, non_blocking=True)
    return luma if is_8_bit else luma.int().bitwise_and_(0xFFFF)


def download(planes: Sequence[Tensor], bit_depth: int) -> list[Codes]:
    """Code values uint8, or uint16 above 8 bits, of tensors in any integer dtype on one device."""
    planes = [plane.to(torch.uint8 if bit_depth == 8 else torch.int16) for plane in planes]
    device = planes[0].device
    if device.type == "cuda":
        staged = [torch.empty(plane.shape, dtype=plane.dtype, pin_memory=True) for plane in planes]
        for into, plane in zip(staged, planes, strict=True):
            into.copy_(plane, non_blocking=True)
        torch.cuda.current_stream(device).synchronize()
        planes = staged
    arrays = [plane.cpu().numpy() for plane in planes]
    return arrays if bit_depth == 8 else [array.view(np.uint16) for array in arrays]
