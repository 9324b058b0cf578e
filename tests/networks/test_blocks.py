"""The up-convolution, spectral norm and instance norm against their plain definitions."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F

from archivecolor.config import PRESETS, GeneratorConfig
from archivecolor.networks import Generator, fold_generator
from archivecolor.networks.blocks import InstanceNorm2d, SpectralConv2d, UpConv2d, iterate_power, make_norm

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def _plain_up(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    upsampled = F.interpolate(x, scale_factor=2, mode="nearest")
    return F.conv2d(F.pad(upsampled, (1, 2, 1, 2)), weight)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 5)])
def test_up_convolution_equals_upsampling_then_convolving(size: tuple[int, int], layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 5, 4, 4, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_(True)
    bias = torch.randn(7, dtype=torch.float64)
    up = UpConv2d(5, 7, bias=False, spectral_norm=False)
    mine = up.convolve(x, up.kernel(weight), bias)
    plain = _plain_up(x, weight) + bias.view(1, -1, 1, 1)
    assert mine.shape == (2, 7, 2 * size[0], 2 * size[1])
    torch.testing.assert_close(mine, plain)
    seed = torch.randn_like(plain)
    gradients = torch.autograd.grad(mine, (x, weight), seed)
    for a, b in zip(gradients, torch.autograd.grad(plain, (x, weight), seed), strict=True):
        torch.testing.assert_close(a, b)


def test_up_convolution_without_spectral_norm_is_the_plain_one() -> None:
    torch.manual_seed(0)
    up = UpConv2d(3, 4, bias=True, spectral_norm=False)
    torch.nn.init.normal_(up.bias)
    x = torch.randn(2, 3, 6, 6)
    expected = _plain_up(x, up.weight) + up.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(up(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("up", [False, True])
def test_spectral_norm_divides_by_the_largest_singular_value(up: bool, layout: torch.memory_format) -> None:
    torch.manual_seed(1)
    if up:
        conv: SpectralConv2d = UpConv2d(6, 10, bias=True, spectral_norm=True)
    else:
        conv = SpectralConv2d(6, 10, stride=2, bias=True, spectral_norm=True)
    conv = conv.to(memory_format=layout)
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, 6, 8, 8)
    for _ in range(200):
        conv.iterate_power()
    true_sigma = torch.linalg.svdvals(conv.weight.flatten(1))[0]
    torch.testing.assert_close(conv.sigma(), true_sigma, rtol=1e-4, atol=0)
    weight = conv.weight / true_sigma
    plain = _plain_up(x, weight) if up else F.conv2d(x, weight, stride=2, padding=1)
    torch.testing.assert_close(conv(x), plain + conv.bias.view(1, -1, 1, 1), atol=1e-4, rtol=1e-4)
    before = conv.u.clone()
    conv(x)
    assert torch.equal(conv.u, before), "a forward pass reads the estimate and leaves it alone"


def test_one_power_iteration_is_miyatos() -> None:
    """Algorithm 1: v = W^T u / |.|, u = W v / |.|, sigma = u^T W v; sigma's gradient is u v^T."""
    torch.manual_seed(2)
    conv = SpectralConv2d(3, 5, stride=1, bias=False, spectral_norm=True)
    torch.nn.init.normal_(conv.u)
    matrix, u = conv.weight.detach().flatten(1), conv.u.clone()
    iterate_power(torch.nn.Sequential(conv, torch.nn.Conv2d(1, 1, 1)))
    u = F.normalize(matrix @ F.normalize(matrix.T @ u, dim=0), dim=0)
    torch.testing.assert_close(conv.u, u)
    v = F.normalize(matrix.T @ u, dim=0)
    sigma = conv.sigma()
    torch.testing.assert_close(sigma.detach(), u @ matrix @ v)
    sigma.backward()
    torch.testing.assert_close(conv.weight.grad.flatten(1), torch.outer(u, v))


def test_gradient_flows_through_sigma() -> None:
    """d(W/sigma)/dW as in Miyato et al. eq. 12: along W itself there is none, since W/sigma does not change."""
    torch.manual_seed(0)
    conv = SpectralConv2d(3, 5, stride=1, bias=False, spectral_norm=True)
    x = torch.randn(1, 3, 8, 8)
    for _ in range(300):
        conv.iterate_power()
    conv(x).square().sum().backward()
    along = (conv.weight.grad * conv.weight).sum() / conv.weight.norm()
    assert along.abs() < 1e-2 * conv.weight.grad.norm()


def test_instance_norm_is_torchs() -> None:
    torch.manual_seed(0)
    mine, theirs = InstanceNorm2d(4), torch.nn.InstanceNorm2d(4, affine=True)
    for parameter, other in ((mine.weight, theirs.weight), (mine.bias, theirs.bias)):
        torch.nn.init.normal_(parameter)
        other.data.copy_(parameter.data)
    x = torch.randn(3, 4, 7, 5) * 3 + 2
    torch.testing.assert_close(mine(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="ibn"):
        make_norm("ibn", 4)


def randomise(generator: Generator) -> None:
    """Statistics, affine maps and biases as training would leave them: nowhere near their initial values."""
    for module in generator.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 3)
        if isinstance(module, torch.nn.BatchNorm2d | InstanceNorm2d):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
        if isinstance(module, SpectralConv2d) and module.bias is not None:
            torch.nn.init.normal_(module.bias, std=0.1)


@pytest.mark.parametrize("name", PRESETS)
def test_folding_changes_nothing(name: str) -> None:
    torch.manual_seed(3)
    preset = PRESETS[name].generator
    generator = Generator(GeneratorConfig(preset.norm, preset.spectral_norm, (8, 12, 16, 16)))
    randomise(generator)
    generator.train()
    folded = fold_generator(generator)
    assert generator.training, "folding leaves the generator as it was"
    generator.eval()
    x = torch.rand(2, 1, 64, 48) * 2 - 1
    with torch.no_grad():
        expected = generator(x)
        torch.testing.assert_close(folded(x), expected, atol=2e-5, rtol=1e-4)
    assert expected.std() > 0.05, "a flat output would prove nothing"
    assert not any(isinstance(m, SpectralConv2d | torch.nn.BatchNorm2d) for m in folded.modules())
    kept = sum(isinstance(m, InstanceNorm2d) for m in folded.modules())
    assert kept == sum(isinstance(m, InstanceNorm2d) for m in generator.modules())
    assert not any(p.requires_grad for p in folded.parameters())


def test_folding_keeps_nothing_of_the_generator_alive() -> None:
    generator = Generator(GeneratorConfig(widths=(8, 12, 16)))
    weights = [weakref.ref(module) for module in generator.modules()]
    folded = fold_generator(generator, torch.bfloat16)
    del generator
    gc.collect()
    assert not any(weight() for weight in weights)
    assert {buffer.dtype for buffer in folded.buffers()} == {torch.bfloat16}
