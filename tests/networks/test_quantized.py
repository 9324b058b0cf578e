"""The 8-bit generator against the float one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from archivecolor.config import PRESETS, GeneratorConfig
from archivecolor.networks import Generator, QuantizedGenerator, fold_generator, supports_int8
from archivecolor.networks.blocks import UpConv2d
from archivecolor.networks.quantized import phase_kernel, sum_phases

needs_int8 = pytest.mark.skipif(not supports_int8(torch.device("cpu")), reason="a CPU without 8-bit dot products")


def _trained_like(config: GeneratorConfig) -> Generator:
    """A seeded generator whose normalisation layers have seen data and whose colours are strong."""
    torch.manual_seed(3)
    generator = Generator(config)
    generator.train()
    with torch.no_grad():
        for _ in range(30):
            generator(torch.rand(4, 1, 64, 64) * 2 - 1)
        for module in generator.decoder:
            torch.nn.init.uniform_(module.norm.bias, -0.3, 0.3)
        generator.output.weight.mul_(2)
        generator.output.bias.copy_(torch.tensor([0.12, -0.2]))
    return generator.eval()


@pytest.mark.parametrize("channels", [3, 24])  # the two ways of summing
@torch.no_grad()
def test_phases_make_the_up_convolution(channels: int) -> None:
    torch.manual_seed(0)
    up = UpConv2d(5, channels, bias=False, spectral_norm=False)
    x = torch.randn(2, 5, 6, 7)
    terms = F.conv2d(x, phase_kernel(up.weight), padding=1).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(sum_phases(terms), up(x), atol=1e-5, rtol=1e-5)


@needs_int8
@torch.no_grad()
@pytest.mark.parametrize("preset", ["bn", "in", "ibn-sn-md"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantised_generator_follows_the_float_one(preset: str, dtype: torch.dtype) -> None:
    generator = _trained_like(replace(PRESETS[preset].generator, widths=(16, 24, 32)))
    folded = fold_generator(generator).to(dtype, memory_format=torch.channels_last)
    frames = (torch.rand(8, 1, 64, 64) * 2 - 1).to(dtype).contiguous(memory_format=torch.channels_last)
    quantized = QuantizedGenerator(folded, frames[:4])
    expected, actual = folded(frames[4:]), quantized(frames[4:])
    assert actual.shape == expected.shape and actual.dtype == torch.float32
    difference = (actual - expected).abs().mean()
    assert difference < 0.1 * (expected - expected.mean(dim=(2, 3), keepdim=True)).abs().mean()
    assert quantized.deviation == pytest.approx(float(difference), rel=0.5)


@needs_int8
def test_a_quantised_frame_does_not_depend_on_its_batch() -> None:
    folded = fold_generator(_trained_like(GeneratorConfig(widths=(16, 24, 32))))
    folded = folded.to(memory_format=torch.channels_last)
    frames = torch.rand(4, 1, 64, 64) * 2 - 1
    quantized = QuantizedGenerator(folded, frames)
    torch.testing.assert_close(quantized(frames)[2:3], quantized(frames[2:3]), atol=0, rtol=0)
