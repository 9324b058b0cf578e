"""The generator for inference: spectral norm and batch norm folded into plain convolutions, exactly."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archivecolor.config import GeneratorConfig
from archivecolor.networks.blocks import InstanceNorm2d, SpectralConv2d, UpConv2d, convolve_up
from archivecolor.networks.generator import LEAK, DownBlock, Generator, UpBlock


class FoldedConv2d(nn.Module):
    """A convolution with constant kernel and bias, and the instance norm that could not be folded, if any."""

    def __init__(self, conv: SpectralConv2d, norm: nn.Module) -> None:
        super().__init__()
        scale = torch.ones(conv.weight.shape[0], device=conv.weight.device)
        if conv.spectral_norm:
            scale = scale / conv.sigma()
        bias = torch.zeros_like(scale) if conv.bias is None else conv.bias.detach().clone()
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            scale, bias = scale * gain, (bias - norm.running_mean) * gain + norm.bias
        self.register_buffer("kernel", conv.kernel(conv.weight * scale.view(-1, 1, 1, 1)).contiguous())
        self.register_buffer("bias", bias)
        self.kernel: Tensor
        self.bias: Tensor
        self.is_up = isinstance(conv, UpConv2d)
        self.geometry = {"stride": conv.stride, "padding": conv.padding}
        self.norm = copy.deepcopy(norm) if isinstance(norm, InstanceNorm2d) else nn.Identity()

    def plain_kernel(self) -> Tensor:
        """(out, in, 4, 4), whatever form ``kernel`` has."""
        return self.kernel.transpose(0, 1).flip(2, 3) if self.is_up else self.kernel

    def forward(self, x: Tensor) -> Tensor:
        if self.is_up:
            y = convolve_up(x, self.kernel, self.bias)
        else:
            y = F.conv2d(x, self.kernel, self.bias, **self.geometry)
        if isinstance(self.norm, InstanceNorm2d):
            y = instance_norm(y, self.norm.weight, self.norm.bias, self.norm.eps)
        return y


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`InstanceNorm2d` without its float32 copy of ``x``, which on a CPU costs as much as a convolution.

    Columns are averaged in the dtype of ``x`` (accumulated in float32), the means of columns in float32.
    """
    mean = x.mean(dim=2).float().mean(dim=2)
    var = (x * x).mean(dim=2).float().mean(dim=2) - mean * mean
    scale = weight.float() * torch.rsqrt(var.clamp_min_(0) + eps)
    shift = bias.float() - mean * scale
    return torch.addcmul(shift.to(x.dtype)[..., None, None], x, scale.to(x.dtype)[..., None, None])


def _fold(block: nn.Module, dtype: torch.dtype) -> FoldedConv2d:
    assert isinstance(block, DownBlock | UpBlock)
    return FoldedConv2d(block.conv, block.norm).to(dtype)


class FoldedGenerator(nn.Module):
    """Same function as the `Generator` it was folded from, in evaluation mode; holds no trainable parameter.

    ``forward`` takes ``l_norm`` (N, 1, H, W) in the module's dtype and returns ``ab_norm`` (N, 2, H, W), float32.
    """

    config: GeneratorConfig

    def __init__(self, generator: Generator, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = generator.config
        self.encoder = nn.ModuleList(_fold(block, dtype) for block in generator.encoder)
        self.decoder = nn.ModuleList(_fold(block, dtype) for block in generator.decoder)
        self.output = FoldedConv2d(generator.output, nn.Identity()).to(dtype)

    def forward(self, l_norm: Tensor) -> Tensor:
        return self.finish(*self.activations(l_norm))

    def activations(self, l_norm: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The outputs of the encoder's and of the decoder's blocks, outermost encoder block first."""
        downs, ups = [], []
        x = l_norm
        for down in self.encoder:
            x = F.leaky_relu(down(x), LEAK, inplace=True)
            downs.append(x)
        for up, skip in zip(self.decoder, downs[-2::-1], strict=True):
            ups.append(F.relu(up(x), inplace=True))
            x = torch.cat([ups[-1], skip], dim=1)
        return downs, ups

    def finish(self, downs: list[Tensor], ups: list[Tensor]) -> Tensor:
        """``ab_norm`` from what `activations` returned."""
        return torch.tanh(self.output(torch.cat([ups[-1], downs[0]], dim=1)).float())


@torch.no_grad()
def fold_generator(generator: Generator, dtype: torch.dtype = torch.float32) -> FoldedGenerator:
    """Fold ``generator`` (left untouched, put in evaluation mode for the purpose) into a `FoldedGenerator`.

    Folded in float32, block by block, and kept in ``dtype``.
    """
    was_training = generator.training
    generator.eval()
    try:
        return FoldedGenerator(generator, dtype).requires_grad_(False).eval()
    finally:
        generator.train(was_training)
