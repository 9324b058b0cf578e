"""The loss terms against the paper's equations, written out."""

from __future__ import annotations

import math

import pytest
import torch

from archivecolor.training.losses import adversarial_loss, discriminator_loss, l1_loss


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
