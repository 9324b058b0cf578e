"""Convolutions and normalisation layers that the paper's networks are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archivecolor.config import Norm

KERNEL_PX = 4


def sum_2x2(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, H - 1, W - 1): each 2x2 neighbourhood's sum."""
    rows = x[:, :, 1:] + x[:, :, :-1]
    return rows[..., 1:] + rows[..., :-1]


def convolve_up(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """`UpConv2d` without its spectral norm; ``kernel`` is the 4x4 one as `UpConv2d.kernel` gives it.

    Each output is the sum of four terms, so each takes a quarter of the bias.
    """
    terms = F.conv_transpose2d(x, kernel, None if bias is None else bias / 4, stride=2)
    return sum_2x2(terms[:, :, 1:, 1:])


class SpectralConv2d(nn.Module):
    """4x4 convolution whose weight is divided by its largest singular value where ``spectral_norm`` is on.

    The division is applied to the output, ``conv(x, W) / sigma + bias``, which is the same function and spares a
    copy of W each step. Sigma is estimated by power iteration (Miyato et al. 2018, algorithm 1); the forward pass
    only reads the estimate of the left singular vector, ``u``, and `iterate_power` brings it up to date.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        bias: bool,
        spectral_norm: bool,
        padding: int = 1,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.spectral_norm = stride, padding, spectral_norm
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, KERNEL_PX, KERNEL_PX))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        if spectral_norm:
            self.register_buffer("u", torch.empty(out_channels))
            self.u: Tensor
        if not self.weight.is_meta:  # computing on it would import torch's compiler, which takes seconds
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Glorot's weights, and an estimate of ``u`` that belongs to them."""
        nn.init.xavier_uniform_(self.weight)
        if self.spectral_norm:
            self.u.copy_(F.normalize(torch.randn_like(self.u), dim=0))
            for _ in range(10):
                self.iterate_power()

    def _matrix(self) -> Tensor:
        """W as (out, in * 16): a view in either memory format, which permutes columns but no singular value."""
        channels_last = self.weight.is_contiguous(memory_format=torch.channels_last)
        return (self.weight.permute(0, 2, 3, 1) if channels_last else self.weight).flatten(1)

    def _right_vector(self) -> Tensor:
        """The right singular vector's estimate that belongs to ``u``, (in * 16,), a constant to autograd."""
        with torch.no_grad():
            return F.normalize(self._matrix().T @ self.u, dim=0)

    @torch.no_grad()
    def iterate_power(self) -> None:
        """One power iteration, where there is spectral norm; not between a forward pass and its backward pass."""
        if self.spectral_norm:
            self.u.copy_(F.normalize(self._matrix() @ self._right_vector(), dim=0))

    def sigma(self) -> Tensor:
        """Largest singular value of W as an (out, in * 16) matrix, differentiable; 0-d float32."""
        with torch.autocast(self.weight.device.type, enabled=False):
            sigma: Tensor = self.u @ (self._matrix() @ self._right_vector())
            return sigma

    def kernel(self, weight: Tensor) -> Tensor:
        """The kernel that `convolve` takes, from the 4x4 ``weight``."""
        return weight

    def convolve(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        """The bare convolution."""
        return F.conv2d(x, kernel, bias, stride=self.stride, padding=self.padding)

    def forward(self, x: Tensor) -> Tensor:
        device_type = x.device.type
        weight: Tensor = self.weight
        if torch.is_autocast_enabled(device_type):
            weight = weight.to(torch.get_autocast_dtype(device_type))
        y = self.convolve(x, self.kernel(weight))
        bias = None if self.bias is None else self.bias.to(y.dtype).view(1, -1, 1, 1)
        if not self.spectral_norm:
            return y if bias is None else y + bias
        scale = self.sigma().reciprocal().to(y.dtype)
        return y * scale if bias is None else torch.addcmul(bias, y, scale)


def iterate_power(network: nn.Module) -> None:
    """One power iteration in every convolution of ``network``: once a training step, before its forward pass."""
    for module in network.modules():
        if isinstance(module, SpectralConv2d):
            module.iterate_power()


class UpConv2d(SpectralConv2d):
    """Nearest-neighbour x2 upsampling, padding of one before and two after, and a 4x4 convolution of stride 1.

    Upsampling is stuffing with zeros and summing 2x2 neighbourhoods; convolutions commute, so the sum may come last:
    a transposed 4x4 convolution of stride 2, then `sum_2x2`. The same function, borders included, at a quarter of the
    multiplications.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool, spectral_norm: bool) -> None:
        super().__init__(in_channels, out_channels, stride=1, bias=bias, spectral_norm=spectral_norm)

    def kernel(self, weight: Tensor) -> Tensor:
        return weight.flip(2, 3).transpose(0, 1)

    def convolve(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        """The bare convolution."""
        return convolve_up(x, kernel, bias)


class InstanceNorm2d(nn.Module):
    """Instance normalisation with an affine map a channel (Ulyanov et al. 2016), statistics in float32."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        var, mean = torch.var_mean(x.float(), dim=(2, 3), keepdim=True, correction=0)
        scale = self.weight.view(1, -1, 1, 1) * torch.rsqrt(var + self.eps)
        shift = self.bias.view(1, -1, 1, 1) - mean * scale
        return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))


def make_norm(kind: Norm | None, channels: int) -> nn.Module:
    """Batch norm, instance norm or nothing."""
    if kind is None:
        return nn.Identity()
    if kind == "bn":
        return nn.BatchNorm2d(channels)
    if kind == "in":
        return InstanceNorm2d(channels)
    raise ValueError(f"a single layer has bn, in or no normalisation, not {kind!r}")
