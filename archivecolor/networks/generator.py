"""The U-Net generator (paper IV-B, Fig. 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archivecolor.config import GeneratorConfig, Norm
from archivecolor.networks.blocks import SpectralConv2d, UpConv2d, make_norm

LEAK = 0.2


class DownBlock(nn.Module):
    """Encoder block: 4x4 convolution of stride 2, normalisation, LeakyReLU 0.2; halves height and width."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm | None, spectral_norm: bool) -> None:
        super().__init__()
        self.conv = SpectralConv2d(in_channels, out_channels, stride=2, bias=norm is None, spectral_norm=spectral_norm)
        self.norm = make_norm(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), LEAK)


class UpBlock(nn.Module):
    """Decoder block: upsampling by 2, 4x4 convolution, normalisation, ReLU; doubles height and width."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, spectral_norm: bool) -> None:
        super().__init__()
        self.conv = UpConv2d(in_channels, out_channels, bias=False, spectral_norm=spectral_norm)
        self.norm = make_norm(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Generator(nn.Module):
    """Lightness to chroma, fully convolutional (paper eq. 1).

    ``forward`` takes ``l_norm`` (N, 1, H, W), L/50 - 1 in -1..1, and returns ``ab_norm`` (N, 2, H, W), ab/110 in
    -1..1, with H and W multiples of ``config.size_multiple_px``.
    """

    def __init__(self, config: GeneratorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GeneratorConfig()
        sn, widths = config.spectral_norm, config.widths
        inner: Norm = "in" if config.norm == "in" else "bn"
        last: Norm = "bn" if config.norm == "bn" else "in"

        self.encoder = nn.ModuleList()
        channels = 1
        for i, width in enumerate(widths):
            self.encoder.append(DownBlock(channels, width, None if i == 0 else inner, sn))
            channels = width

        self.decoder = nn.ModuleList()
        skips = widths[-2::-1]  # the decoder's widths and, by the U-Net's symmetry, its skips'
        for i, width in enumerate(skips):
            self.decoder.append(UpBlock(channels, width, last if i == len(skips) - 1 else inner, sn))
            channels = 2 * width
        self.output = UpConv2d(channels, 2, bias=True, spectral_norm=sn)

    def forward(self, l_norm: Tensor) -> Tensor:
        features = []
        x = l_norm
        for down in self.encoder:  # (N, widths[i], H / 2^(i+1), W / 2^(i+1))
            x = down(x)
            features.append(x)
        for up, skip in zip(self.decoder, features[-2::-1], strict=True):
            x = torch.cat([up(x), skip], dim=1)
        return torch.tanh(self.output(x))
