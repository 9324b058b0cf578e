"""Arrays between numpy and the engine's device: one copy each way a batch.

On a GPU all computing, of whatever thread, is queued on the device's default stream, so that threads may hand each
other tensors as they are. Copies alone have streams of their own, one each way, to go on beside the computing. They
meet the default stream here and nowhere else:

- What is uploaded is allocated and filled on the upload stream. The default stream waits for that before it computes
  with it, and the memory is not given away before the default stream has done so (``record_stream``).
- The download stream waits for what was computed before. The caller waits for the download stream, not for what other
  threads compute meanwhile, and holds what is copied until then.
- Pinned memory is not given away either before the copies from and to it are done; torch sees to that.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Codes = npt.NDArray[Any]


def upload(planes: Sequence[Codes], device: torch.device) -> Tensor:
    """(N, H, W) code values on ``device``, of N planes uint8 or uint16 (H, W): uint8, or int32 to compute in."""
    is_8_bit = planes[0].dtype == np.uint8
    luma = _send(planes, torch.uint8 if is_8_bit else torch.int16, device)
    return luma if is_8_bit else luma.int().bitwise_and_(0xFFFF)


def upload_floats(arrays: Sequence[npt.NDArray[np.float32]], device: torch.device) -> Tensor:
    """(N, ...) on ``device``, of N float32 arrays of one shape."""
    return _send(arrays, torch.float32, device)


def download(planes: Sequence[Tensor], bit_depth: int) -> list[Codes]:
    """Code values uint8, or uint16 above 8 bits, of tensors in any integer dtype on one device."""
    planes = fetch([plane.to(torch.uint8 if bit_depth == 8 else torch.int16) for plane in planes])
    return [plane.numpy() if bit_depth == 8 else plane.numpy().view(np.uint16) for plane in planes]


def fetch(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same tensors on the CPU, once they are computed; all on one device."""
    device = tensors[0].device
    if device.type != "cuda":
        return [tensor.cpu() for tensor in tensors]
    tensors = [tensor.contiguous() for tensor in tensors]
    fetched = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
    stream = _copy_stream(device, "down")
    copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # waits asleep: the cores have work
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for into, tensor in zip(fetched, tensors, strict=True):
            into.copy_(tensor, non_blocking=True)
        copied.record(stream)
    copied.synchronize()
    return fetched


def _send(arrays: Sequence[npt.NDArray[Any]], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(N, ...) on ``device``, of N arrays as wide as ``dtype``."""
    shape = (len(arrays), *arrays[0].shape)
    staged = torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")
    into = staged.numpy()
    np.stack([array.view(into.dtype) for array in arrays], out=into)
    if device.type != "cuda":
        return staged.to(device)
    computing, stream = torch.cuda.current_stream(device), _copy_stream(device, "up")
    with torch.cuda.stream(stream):
        sent = staged.to(device, non_blocking=True)
    computing.wait_stream(stream)
    sent.record_stream(computing)
    return sent


@functools.cache
def _copy_stream(device: torch.device, way: Literal["up", "down"]) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
