"""Each preset's modules against its row of Table I, and the shapes that the paper names."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from archivecolor.config import PRESETS, DiscriminatorConfig, GeneratorConfig
from archivecolor.networks import Generator, MultiScaleDiscriminator
from archivecolor.networks.blocks import InstanceNorm2d, SpectralConv2d, UpConv2d

ENCODER, DECODER = [64, 128, 256, 512, 512, 512, 512], [512, 512, 512, 256, 128, 64]
NONE, BN, IN = nn.Identity, nn.BatchNorm2d, InstanceNorm2d

# Row of Table I: norms of encoder, decoder and each discriminator; spectral norm; number of discriminators.
ROWS = {
    "bn": ([NONE] + [BN] * 6, [BN] * 6, [NONE, BN, BN, BN], False, 1),
    "in": ([NONE] + [IN] * 6, [IN] * 6, [NONE, IN, IN, IN], False, 1),
    "bn-sn": ([NONE] + [BN] * 6, [BN] * 6, [NONE, BN, BN, BN], True, 1),
    "in-sn": ([NONE] + [IN] * 6, [IN] * 6, [NONE, IN, IN, IN], True, 1),
    "bn-sn-md": ([NONE] + [BN] * 6, [BN] * 6, [NONE, BN, BN, BN], True, 3),
    "ibn-sn-md": ([NONE] + [BN] * 6, [BN] * 5 + [IN], [NONE, IN, BN, NONE], True, 3),
}


def test_every_row_of_the_table_is_a_preset() -> None:
    assert set(PRESETS) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_modules_of_the_preset(name: str) -> None:
    encoder, decoder, patch, spectral_norm, scales = ROWS[name]
    with torch.device("meta"):
        generator = Generator(PRESETS[name].generator)
        discriminator = MultiScaleDiscriminator(PRESETS[name].discriminator)

    assert [type(block.norm) for block in generator.encoder] == encoder
    assert [type(block.norm) for block in generator.decoder] == decoder
    assert [block.conv.weight.shape[0] for block in generator.encoder] == ENCODER
    assert [block.conv.weight.shape[0] for block in generator.decoder] == DECODER
    assert all(type(block.conv) is UpConv2d for block in generator.decoder) and type(generator.output) is UpConv2d
    assert generator.output.weight.shape[:2] == (2, 128)

    assert len(discriminator.scales) == scales
    for scale in discriminator.scales:
        assert [type(scale.layers[i]) for i in (1, 4, 7, 10)] == patch
        assert [layer.weight.shape[0] for layer in scale.layers[::3]] == [64, 128, 256, 512, 1]
        assert [layer.stride for layer in scale.layers[::3]] == [2, 2, 2, 1, 1]
        assert isinstance(scale.layers[11], nn.LeakyReLU) and scale.layers[11].negative_slope == 0.2

    kinds = Counter(type(module) for module in generator.modules())
    assert kinds[BN] == (encoder + decoder).count(BN) and kinds[IN] == (encoder + decoder).count(IN)
    convolutions = [m for net in (generator, discriminator) for m in net.modules() if isinstance(m, SpectralConv2d)]
    assert len(convolutions) == 14 + 5 * scales
    assert all(hasattr(conv, "u") is spectral_norm for conv in convolutions)
    assert all(conv.weight.shape[2:] == (4, 4) for conv in convolutions)
    assert not any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in generator.modules())


def test_about_42_million_parameters() -> None:
    with torch.device("meta"):
        generator = Generator()
    assert 41e6 < sum(p.numel() for p in generator.parameters()) < 43e6


def test_discriminators_have_weights_of_their_own() -> None:
    discriminator = MultiScaleDiscriminator(DiscriminatorConfig(widths=(8, 8, 8, 8)))
    first, second, _ = (scale.layers[0].weight for scale in discriminator.scales)
    assert first is not second and not torch.equal(first, second)


def test_receptive_field_is_70_px() -> None:
    """Which input pixels a logit's gradient reaches, for a discriminator without statistics over the whole image."""
    torch.manual_seed(0)
    config = DiscriminatorConfig(norm="bn", scales=3, widths=(8, 8, 8, 8))
    discriminator = MultiScaleDiscriminator(config).eval()
    L, ab = torch.rand(1, 1, 512, 512, requires_grad=True), torch.rand(1, 2, 512, 512)
    for scale, logits in enumerate(discriminator(L, ab)):
        side = logits.shape[-1]
        assert side == 512 // 2**scale // 8 - 2
        (gradient,) = torch.autograd.grad(logits[0, 0, side // 2, side // 2], L, retain_graph=True)
        for axis in (0, 1):
            reached = gradient[0, 0].abs().sum(axis).nonzero().flatten()
            assert int(reached[-1] - reached[0]) + 1 == 70 * 2**scale


def test_coarser_scales_see_the_averaged_input() -> None:
    discriminator = MultiScaleDiscriminator(DiscriminatorConfig(norm="bn", widths=(8, 8, 8, 8))).eval()
    L, ab = torch.rand(2, 1, 128, 128), torch.rand(2, 2, 128, 128)
    x = torch.cat([L, ab], 1)
    pooled = x.view(2, 3, 32, 4, 32, 4).mean(dim=(3, 5))
    torch.testing.assert_close(discriminator(L, ab)[2], discriminator.scales[2](pooled), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (40, 8)])
def test_generator_is_fully_convolutional(size: tuple[int, int]) -> None:
    generator = Generator(GeneratorConfig(widths=(8, 12, 16))).eval()
    ab = generator(torch.rand(3, 1, *size) * 2 - 1)
    assert ab.shape == (3, 2, *size)
    assert ab.abs().max() <= 1


def test_skips_reach_the_decoder() -> None:
    """Fine detail passes the bottleneck by: a change of one input pixel moves the output beside it."""
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(norm="bn", widths=(8, 8, 8))).eval()
    x = torch.zeros(1, 1, 32, 32)
    for up in generator.decoder:
        nn.init.zeros_(up.norm.weight)  # cut off everything that is not a skip
    changed = x.clone()
    changed[0, 0, 16, 16] = 1
    difference = (generator(changed) - generator(x)).abs().sum(1)[0]
    assert difference.max() > 0 and difference[:8].max() == 0
