"""The generator for inference: spectral norm and batch norm folded into plain convolutions, exactly."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archivecolor.config import GeneratorConfig
from archivecolor.networks.blocks import InstanceNorm2d, SpectralConv2d
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
        self.convolve = conv.convolve
        self.norm = copy.deepcopy(norm) if isinstance(norm, InstanceNorm2d) else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.convolve(x, self.kernel, self.bias))
        return y


def _fold(block: nn.Module) -> FoldedConv2d:
    assert isinstance(block, DownBlock | UpBlock)
    return FoldedConv2d(block.conv, block.norm)


class FoldedGenerator(nn.Module):
    """Same function as the `Generator` it was folded from, in evaluation mode; holds no trainable parameter.

    ``forward`` takes ``l_norm`` (N, 1, H, W) in the module's dtype and returns ``ab_norm`` (N, 2, H, W), float32.
    """

    config: GeneratorConfig

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.config = generator.config
        self.encoder = nn.ModuleList(_fold(block) for block in generator.encoder)
        self.decoder = nn.ModuleList(_fold(block) for block in generator.decoder)
        self.output = FoldedConv2d(generator.output, nn.Identity())

    def forward(self, l_norm: Tensor) -> Tensor:
        features = []
        x = l_norm
        for down in self.encoder:
            x = F.leaky_relu(down(x), LEAK, inplace=True)
            features.append(x)
        for up, skip in zip(self.decoder, features[-2::-1], strict=True):
            x = torch.cat([F.relu(up(x), inplace=True), skip], dim=1)
        return torch.tanh(self.output(x).float())


@torch.no_grad()
def fold_generator(generator: Generator) -> FoldedGenerator:
    """Fold ``generator`` (left untouched, put in evaluation mode for the purpose) into a `FoldedGenerator`."""
    was_training = generator.training
    generator.eval()
    try:
        return FoldedGenerator(generator).requires_grad_(False).eval()
    finally:
        generator.train(was_training)
