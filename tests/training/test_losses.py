"""The loss terms against the paper's equations, written out."""

from __future__ import annotations

import math

import pytest
import torch

from archivecolor.training.losses import adversarial_loss, discriminator_loss, distribution_loss, l1_loss


@pytest.fixture
def logits() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    torch.manual_seed(0)
    sizes = (6, 3, 1)
    return [torch.randn(2, 1, n, n) for n in sizes], [torch.randn(2, 1, n, n) - 1 for n in sizes]


def test_log_loss_is_eq_4_and_5_summed_over_scales(
    logits: tuple[list[torch.Tensor], list[torch.Tensor]],
) -> None:
    real, fake = logits
    d_real, d_fake = discriminator_loss(real, fake, "bce")
    torch.testing.assert_close(d_real, sum(-torch.log(torch.sigmoid(x)).mean() for x in real))
    torch.testing.assert_close(d_fake, sum(-torch.log(1 - torch.sigmoid(x)).mean() for x in fake))
    torch.testing.assert_close(adversarial_loss(fake, "bce"), sum(-torch.log(torch.sigmoid(x)).mean() for x in fake))


def test_least_squares(logits: tuple[list[torch.Tensor], list[torch.Tensor]]) -> None:
    real, fake = logits
    d_real, d_fake = discriminator_loss(real, fake, "lsgan")
    torch.testing.assert_close(d_real, sum(((x - 1) ** 2).mean() for x in real))
    torch.testing.assert_close(d_fake, sum((x**2).mean() for x in fake))
    torch.testing.assert_close(adversarial_loss(fake, "lsgan"), sum(((x - 1) ** 2).mean() for x in fake))


def test_the_generators_log_loss_does_not_saturate() -> None:
    """Where the discriminator is sure of a fake, the gradient stays whole (III-A); log(1 - D) would have none."""
    logit = torch.tensor([[[[-30.0]]]], requires_grad=True)
    loss = adversarial_loss([logit], "bce")
    (gradient,) = torch.autograd.grad(loss, logit)
    assert loss.item() == pytest.approx(30.0)
    assert gradient.item() == pytest.approx(-1.0)


def test_extreme_logits_stay_finite() -> None:
    extreme = [torch.tensor([[[[-1e4, 1e4]]]])]
    for loss in (*discriminator_loss(extreme, extreme), adversarial_loss(extreme)):
        assert math.isfinite(loss.item())


def test_l1_is_a_mean_over_both_channels_in_float32() -> None:
    ab, truth = torch.zeros(2, 2, 3, 3, dtype=torch.bfloat16), torch.zeros(2, 2, 3, 3)
    truth[:, 0] = 0.3
    loss = l1_loss(ab, truth)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.15)


def halves(first: float, second: float, channels: int) -> torch.Tensor:
    """One picture, the left half of one value and the right half of another."""
    return torch.tensor([first, second]).repeat_interleave(4).expand(1, channels, 8, 8)


def test_the_distribution_does_not_ask_where_a_colour_is() -> None:
    grey = torch.zeros(1, 1, 8, 8)
    assert distribution_loss(grey, halves(0.5, -0.5, 2), halves(-0.5, 0.5, 2)).item() == pytest.approx(0, abs=1e-6)
    assert l1_loss(halves(0.5, -0.5, 2), halves(-0.5, 0.5, 2)).item() == pytest.approx(1)


def test_the_distribution_asks_how_bright_a_colour_is() -> None:
    lightness = halves(-0.8, 0.8, 1)
    assert distribution_loss(lightness, halves(0.5, -0.5, 2), halves(-0.5, 0.5, 2)).item() > 0.1


def test_a_shift_of_all_colours_is_its_mean_over_the_directions() -> None:
    torch.manual_seed(0)
    lightness, truth = torch.rand(2, 1, 8, 8), torch.rand(2, 2, 8, 8)
    shifted = truth + torch.tensor([0.3, 0.0])[None, :, None, None]
    mean = sum(abs(math.cos(n * math.pi / 8)) for n in range(8)) / 8
    assert distribution_loss(lightness, shifted, truth).item() == pytest.approx(0.3 * mean, abs=1e-5)


def test_the_distribution_spreads_colours_that_nothing_tells_apart() -> None:
    """L1 alone is content with grey here; photographs are as often red as green."""
    torch.manual_seed(0)
    lightness = torch.zeros(8, 1, 16, 16)
    truth = (torch.randint(0, 2, (8, 2, 1, 1)) * 1.0 - 0.5).expand(8, 2, 16, 16)
    ab = (torch.randn(8, 2, 16, 16) * 0.01).requires_grad_()
    optimiser = torch.optim.Adam([ab], 0.02)
    for _ in range(100):
        optimiser.zero_grad()
        distribution_loss(lightness, ab, truth).backward()
        optimiser.step()
    pooled = torch.nn.functional.avg_pool2d(ab.detach(), 2)
    assert pooled.abs().mean().item() == pytest.approx(0.5, abs=0.1)
