"""Which device runs the network, and in which precision."""

from __future__ import annotations

import torch

from archivecolor.errors import DeviceError


def choose_device(name: str = "auto") -> torch.device:
    """The named device, or with ``"auto"`` the best there is: cuda, then mps, then cpu.

    Raises:
        DeviceError: this machine, or this build of torch, does not have it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps", "xpu"):
            raise RuntimeError("not one of cpu, cuda, mps, xpu")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DeviceError(f"device {name!r} is not available ({reason}); use --device auto") from error
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """``fp32`` or ``bf16`` as a dtype; ``auto`` and ``int8``: bf16 where the device computes in it, fp32 elsewhere."""
    if precision == "fp32":
        return torch.float32
    if precision == "bf16" or has_fast_bf16(device):
        return torch.bfloat16
    return torch.float32


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 arithmetic of its own, rather than emulating it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities = torch.backends.cpu.get_cpu_capability()
        return "AVX512" in capabilities and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False
