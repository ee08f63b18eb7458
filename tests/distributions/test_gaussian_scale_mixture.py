"""The MCGSM integrates to one, is the mixture of its definition, and its samples follow it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from dgm.distributions.gaussian_scale_mixture import MCGSM


def random_mixture(dim: int, num_components: int = 3, num_scales: int = 2) -> MCGSM:
    torch.manual_seed(0)
    mixture = MCGSM(4, dim, num_components, num_scales, num_gate_features=5).double()
    for parameter in mixture.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mixture


def random_features(count: int) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("dim", [1, 2])
def test_density_integrates_to_one(dim: int) -> None:
    mixture, step = random_mixture(dim), 0.1
    axis = torch.arange(-20.0, 20.0, step, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * dim).view(-1, dim)
    for h in random_features(3):
        with torch.no_grad():
            total = mixture.log_prob(grid, h.expand(len(grid), -1)).exp().sum() * step**dim
        assert float(total) == pytest.approx(1.0, abs=1e-5)


@torch.no_grad()
def test_density_is_the_mixture_of_the_definition() -> None:
    mixture, h = random_mixture(3), random_features(1)[0]
    y = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64)
    factors = mixture.precision_factors()
    gates, densities = [], []
    for c in range(mixture.num_components):
        quadratic = sum(
            float(mixture.energy[c, n] ** 2 * (mixture.features[n] @ h) ** 2) for n in range(len(mixture.features))
        )
        for s in range(mixture.num_scales):
            scale = float(mixture.log_scale[c, s].exp())
            linear = 2 * float(mixture.slope[c] @ h)
            gates.append(math.exp(float(mixture.log_weight[c, s]) - scale / 2 * (quadratic - linear)))
            mean = mixture.mean.weight[3 * c : 3 * c + 3] @ h + mixture.mean.bias[3 * c : 3 * c + 3]
            normal = MultivariateNormal(mean, precision_matrix=scale * factors[c] @ factors[c].T)
            densities.append(float(normal.log_prob(y).exp()))
    expected = sum(g * d for g, d in zip(gates, densities, strict=True)) / sum(gates)
    assert float(mixture.log_prob(y, h).exp()) == pytest.approx(expected, rel=1e-10)


@torch.no_grad()
def test_samples_have_the_moments_of_the_density() -> None:
    mixture, count = random_mixture(2), 40000
    h = random_features(1)
    y = mixture.sample(h.expand(count, -1), torch.Generator().manual_seed(2))
    gates = torch.softmax(mixture.gate_logits(h).flatten(), dim=0).view(3, 2)
    means, factors = mixture.means(h)[0], mixture.precision_factors()
    mean = (gates.sum(dim=1, keepdim=True) * means).sum(dim=0)
    second = torch.zeros(2, 2, dtype=torch.float64)
    for c in range(3):
        covariance = torch.linalg.inv(factors[c] @ factors[c].T)
        spread = (gates[c] * (-mixture.log_scale[c]).exp()).sum()
        second += spread * covariance + gates[c].sum() * torch.outer(means[c], means[c])
    expected = second - torch.outer(mean, mean)
    tolerance = 5 * float(expected.diagonal().max() / math.sqrt(count))
    torch.testing.assert_close(y.mean(dim=0), mean, rtol=0, atol=tolerance)
    torch.testing.assert_close(y.T.cov(), expected, rtol=0, atol=10 * tolerance)


def test_cold_samples_are_the_mode_of_the_likeliest_component() -> None:
    mixture, h = random_mixture(2), random_features(1)
    cold = mixture.sample(h, torch.Generator().manual_seed(2), temperature=1e-9)
    likeliest = int(mixture.gate_logits(h).flatten().argmax()) // mixture.num_scales
    torch.testing.assert_close(cold, mixture.means(h)[:, likeliest], rtol=0, atol=1e-3)


@torch.no_grad()
def test_start_is_the_scale_mixture_of_the_residuals() -> None:
    generator = torch.Generator().manual_seed(3)
    scales = torch.where(torch.rand(20000, 1, generator=generator) < 0.25, 5.0, 0.2)
    residuals = scales * torch.randn(20000, 3, generator=generator)
    torch.manual_seed(0)
    mixture = MCGSM(4, 3, num_components=2, num_scales=2, num_gate_features=2)
    mixture.start_from(residuals)
    weights = mixture.log_weight[0].exp().tolist()
    deviations = (-0.5 * mixture.log_scale[0]).exp().tolist()
    assert sorted(zip(deviations, weights, strict=True)) == [
        (pytest.approx(0.2, rel=0.02), pytest.approx(0.75, abs=0.01)),
        (pytest.approx(5.0, rel=0.02), pytest.approx(0.25, abs=0.01)),
    ]
    # the density before training is that mixture, whatever h is small
    nats = mixture.log_prob(residuals, torch.zeros(20000, 4)).mean()
    ideal = 0.25 * 5.0**-3 * torch.exp(-0.5 * (residuals / 5).square().sum(1))
    ideal = ideal + 0.75 * 0.2**-3 * torch.exp(-0.5 * (residuals / 0.2).square().sum(1))
    expected = (ideal.log() - 1.5 * math.log(2 * math.pi)).mean()
    assert float(nats) == pytest.approx(float(expected), abs=0.01)
