"""The reverse trajectory of a Gaussian: Bayes' rule, its KL terms and their sums, against independent computations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from dgm.distributions.gaussian import image_moments
from dgm.models.deep_diffusion.gaussian_reverse import BAND_NAMES, GaussianReverse
from dgm.models.deep_diffusion.trajectory import ForwardTrajectory
from dgm.seeds import generator_for
from dgm.types import ImageSpec
from tests.models.fitted import correlated_images

SPEC = ImageSpec(3, 2, 2, levels=8)


def fitted(num_steps: int = 6, has_directions: bool = True) -> GaussianReverse:
    start = GaussianReverse(SPEC, ForwardTrajectory(num_steps, "reciprocal", 0.05), has_directions).double()
    start.fit(correlated_images(300, SPEC), is_mirrored=False)
    return start


def noise(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=generator_for(seed), dtype=torch.float64)


def test_moments_of_the_images_are_turned_into_axes_of_unit_mean_variance() -> None:
    images, start = correlated_images(300, SPEC), fitted()
    mean, covariance = image_moments(images)
    assert start.directions is not None
    rebuilt = start.scale**2 * (start.directions * start.variances) @ start.directions.T
    assert torch.allclose(rebuilt, covariance, atol=1e-6)
    pixels = fitted(has_directions=False)
    assert torch.allclose(start.scale, pixels.scale)
    assert torch.allclose(pixels.mean, mean.mean().expand(SPEC.shape))
    values = images.double().flatten()
    assert float(pixels.scale) == pytest.approx(float((values.var(correction=0) + 1 / 12).sqrt()))
    assert torch.equal(pixels.variances, torch.ones(12, dtype=torch.float64))


@pytest.mark.parametrize("has_directions", [True, False])
def test_standardising_is_undone(has_directions: bool) -> None:
    start = fitted(has_directions=has_directions)
    x = 8 * torch.rand(5, *SPEC.shape, generator=generator_for(1)).double()
    y = start.standardize(x)
    assert torch.allclose(start.restore(y), x, atol=1e-5)
    unit = (x - start.mean) / start.scale
    assert torch.allclose(y.square().sum(dim=1), unit.square().sum(dim=(1, 2, 3)), rtol=1e-5)


def test_a_step_is_bayes_rule_of_the_forward_step() -> None:
    start = fitted()
    for t in (2, 4, 6):
        gain, variance = start.step(torch.tensor([t]))
        before, beta = start.diffused(torch.tensor([t - 1])), float(start.trajectory.beta[t])
        joint_with = (1 - beta) ** 0.5 * before  # covariance of y_{t-1} with y_t
        after = (1 - beta) * before + beta
        assert torch.allclose(gain, joint_with / after)
        assert torch.allclose(variance, before - joint_with**2 / after)


def test_noise_estimate_is_the_regression_of_the_noise_on_what_is_seen() -> None:
    start, t = fitted(), torch.tensor([3])
    y = noise(1, 12)
    share, signal = start.trajectory.noise[3], start.trajectory.signal[3]
    regression = share.sqrt() / (signal * start.variances + share)
    assert torch.allclose(start.noise_estimate(y, t), regression * y)


def start_kl(start: GaussianReverse, y_0: Tensor, e: Tensor, t: Tensor) -> Tensor:
    """KL(q || p) of step t from the two Gaussians themselves, by the textbook form of q. Shapes: -> (N,)."""
    table = start.trajectory
    a, before, beta = table.signal[t, None], table.signal[t - 1, None], table.beta[t, None]
    y_t = a.sqrt() * y_0 + (1 - a).sqrt() * e
    mean = before.sqrt() * beta / (1 - a) * y_0 + (1 - beta).sqrt() * (1 - before) / (1 - a) * y_t
    gain, variance = start.step(t)
    assert torch.allclose(mean - gain * y_t, start.offset(y_0, e, t), atol=1e-9)
    q = Normal(mean, start.posterior_variance(t).sqrt())
    return kl_divergence(q, Normal(gain * y_t, variance.sqrt())).sum(dim=1)


def test_sums_of_kl_terms_are_their_means_over_the_noise() -> None:
    start, num_draws = fitted(), 20000
    y_0 = start.standardize(correlated_images(2, SPEC, seed=5).double() + 0.5)
    sums = torch.zeros(2, len(BAND_NAMES), dtype=torch.float64)
    variances = torch.zeros(2, dtype=torch.float64)
    for t in range(2, 7):
        many, steps = y_0.repeat(num_draws, 1), torch.full((2 * num_draws,), t)
        kl = start_kl(start, many, noise(*many.shape, seed=t), steps).view(num_draws, 2)
        sums[:, start.band[t]] += kl.mean(dim=0)
        variances += kl.var(dim=0) / num_draws
    expected = start.expected_kl(y_0)
    assert bool(((expected.sum(dim=1) - sums.sum(dim=1)).abs() < 4 * variances.sqrt()).all())
    assert torch.allclose(expected, sums, atol=0.1)
    assert int((expected[0] > 0).sum()) == 2  # the steps lie in several bands
