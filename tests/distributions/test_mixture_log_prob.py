"""The written-out gradient against automatic differentiation of the plain mixture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.distributions.logistic_mixture import LogisticMixture
from dgm.distributions.mixture_log_prob import mixture_log_prob

Parameters = tuple[Tensor, Tensor, Tensor]


def random_parameters(channels: int, num_mixtures: int, num_pixels: int, levels: int) -> tuple[Tensor, Parameters]:
    """Levels (C, P); logits, means and log-scales that need gradients."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(levels, (channels, num_pixels), generator=generator)
    values[:, 0], values[:, 1] = 0, levels - 1
    logits = torch.randn(num_mixtures, num_pixels, generator=generator, dtype=torch.float64)
    means, log_scales = (
        torch.randn(channels, num_mixtures, num_pixels, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    return values, (logits.requires_grad_(), means.requires_grad_(), (log_scales - 2).requires_grad_())


def plain_log_prob(values: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor, levels: int) -> Tensor:
    channels, num_mixtures, num_pixels = means.shape
    none = means.new_zeros(num_pixels, channels * (channels - 1) // 2, num_mixtures)
    log_weights = torch.log_softmax(logits, dim=0).T
    mixture = LogisticMixture(log_weights, means.permute(2, 0, 1), log_scales.permute(2, 0, 1), none, levels)
    return mixture.log_prob(values.T)


@pytest.mark.parametrize(("channels", "levels"), [(1, 2), (3, 3), (2, 16), (3, 256)])
def test_value_and_gradients_are_those_of_the_plain_mixture(channels: int, levels: int) -> None:
    values, parameters = random_parameters(channels, 4, 50, levels)
    x = unit_from_levels(values, levels, torch.float64)
    fast, plain = mixture_log_prob(x, *parameters, levels), plain_log_prob(values, *parameters, levels)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-8)  # F.softplus there drops what is below exp(-20)
    weights = torch.linspace(-1, 1, 50, dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad(fast @ weights, parameters), torch.autograd.grad(plain @ weights, parameters), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_gradients_against_differences() -> None:
    values, parameters = random_parameters(2, 3, 6, 8)
    x = unit_from_levels(values, 8, torch.float64)
    assert torch.autograd.gradcheck(
        lambda logits, means, log_scales: mixture_log_prob(x, logits, means, log_scales, 8), parameters
    )


@pytest.mark.parametrize("log_scale", [-20.0, -7.0, 3.0, 20.0])
@pytest.mark.parametrize("mean", [-400.0, -1.0, 0.3, 6.0])
def test_extreme_parameters_stay_finite_in_float32(mean: float, log_scale: float) -> None:
    x = unit_from_levels(torch.tensor([[0, 7, 128, 255]]), 256, torch.float32)
    logits = torch.zeros(2, 4, requires_grad=True)
    means = torch.full((1, 2, 4), mean, requires_grad=True)
    log_scales = torch.full((1, 2, 4), log_scale, requires_grad=True)
    log_prob = mixture_log_prob(x, logits, means, log_scales, 256)
    assert bool(log_prob.isfinite().all())
    gradients = torch.autograd.grad(log_prob.sum(), [logits, means, log_scales])
    assert all(bool(each.isfinite().all()) for each in gradients)
    levels = torch.arange(256).unsqueeze(0)
    x = unit_from_levels(levels, 256, torch.float64)
    wide = (each.detach().double()[..., :1].expand(*each.shape[:-1], 256) for each in (logits, means, log_scales))
    total = mixture_log_prob(x, next(wide), next(wide), next(wide), 256).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-9)
