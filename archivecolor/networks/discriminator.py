"""The PatchGAN discriminators (paper IV-B and III-D)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archivecolor.config import DiscriminatorConfig, Norm
from archivecolor.networks.blocks import SpectralConv2d, make_norm
from archivecolor.networks.generator import LEAK


class PatchDiscriminator(nn.Module):
    """70x70 PatchGAN: (N, 3, H, W) of ``l_norm`` and ``ab_norm`` to logits (N, 1, H/8 - 2, W/8 - 2).

    Five 4x4 convolutions of stride 2, 2, 2, 1, 1. With ``ibn``: none at 64, instance norm at 128, batch norm at
    256, none at 512, as the paper's Fig. 2 shows (its authors' released code has batch norm at 512).
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        kind = config.norm
        norms: list[Norm | None] = [None, "in", "bn", None] if kind == "ibn" else [None, kind, kind, kind]
        if len(config.widths) != len(norms):
            raise ValueError("the 70x70 discriminator has four widths")
        layers: list[nn.Module] = []
        channels = 3
        for i, (width, norm) in enumerate(zip(config.widths, norms, strict=True)):
            stride = 1 if i == len(norms) - 1 else 2
            layers += [
                SpectralConv2d(channels, width, stride=stride, bias=norm is None, spectral_norm=config.spectral_norm),
                make_norm(norm, width),
                nn.LeakyReLU(LEAK),
            ]
            channels = width
        layers.append(SpectralConv2d(channels, 1, stride=1, bias=True, spectral_norm=config.spectral_norm))
        self.layers = nn.Sequential(*layers)

    def forward(self, lab_norm: Tensor) -> Tensor:
        logits: Tensor = self.layers(lab_norm)
        return logits


class MultiScaleDiscriminator(nn.Module):
    """``config.scales`` discriminators with their own weights, on the input average-pooled by 1, 2, 4 (eq. 6)."""

    def __init__(self, config: DiscriminatorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DiscriminatorConfig()
        self.scales = nn.ModuleList(PatchDiscriminator(config) for _ in range(config.scales))

    def forward(self, l_norm: Tensor, ab_norm: Tensor) -> list[Tensor]:
        """Logits of each scale, finest first, for (N, 1, H, W) lightness and (N, 2, H, W) chroma."""
        x = torch.cat([l_norm, ab_norm.to(l_norm.dtype)], dim=1)
        logits = []
        for n, discriminator in enumerate(self.scales):
            if n:
                x = F.avg_pool2d(x, 2)
            logits.append(discriminator(x))
        return logits
