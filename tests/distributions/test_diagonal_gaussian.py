"""Density and KL of diagonal Gaussians against scipy, quadrature and Monte Carlo; draws have the stated moments."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from dgm.distributions.diagonal_gaussian import DiagonalGaussian
from dgm.distributions.precision import sum_per_image
from dgm.seeds import generator_for


def random_gaussian(seed: int, shape: tuple[int, ...] = (3, 4)) -> DiagonalGaussian:
    generator = generator_for(seed)
    return DiagonalGaussian(
        torch.randn(shape, generator=generator, dtype=torch.float64),
        0.5 * torch.randn(shape, generator=generator, dtype=torch.float64),
    )


def test_log_density_is_scipys() -> None:
    q = random_gaussian(0)
    z = torch.randn(3, 4, generator=generator_for(1), dtype=torch.float64)
    expected = stats.norm.logpdf(z.numpy(), q.mean.numpy(), q.log_std.exp().numpy())
    assert torch.allclose(q.log_density(z), torch.from_numpy(expected), atol=1e-12)


def test_kl_is_the_integral_of_the_log_ratio() -> None:
    q, p = random_gaussian(2), random_gaussian(3)
    grid = torch.linspace(-15, 15, 30001, dtype=torch.float64)[:, None, None]
    ratio = q.log_density(grid).exp() * (q.log_density(grid) - p.log_density(grid))
    assert torch.allclose(q.kl(p), torch.trapezoid(ratio, dx=0.001, dim=0), atol=1e-9)
    assert torch.equal(q.kl(q), torch.zeros(3, 4, dtype=torch.float64))


def test_kl_is_the_mean_of_the_log_ratio_of_draws() -> None:
    q, p = random_gaussian(4), random_gaussian(5)
    many = DiagonalGaussian(q.mean.expand(100_000, 3, 4), q.log_std.expand(100_000, 3, 4))
    z = many.sample(generator_for(6))
    ratios = q.log_density(z) - p.log_density(z)
    error = ratios.std(dim=0) / len(z) ** 0.5
    assert bool(((ratios.mean(dim=0) - q.kl(p)).abs() < 5 * error).all())


def test_draws_have_the_moments_and_the_temperature_scales_their_spread() -> None:
    q = DiagonalGaussian(torch.full((200_000,), 3.0), torch.full((200_000,), -1.0))
    z = q.sample(generator_for(7), temperature=0.5)
    assert float(z.mean()) == pytest.approx(3.0, abs=0.005)
    assert float(z.std()) == pytest.approx(0.5 * 0.36788, rel=0.01)
    assert torch.equal(z, q.sample(generator_for(7), temperature=0.5))


def test_half_precision_is_widened_and_sums_end_in_float64() -> None:
    wide = DiagonalGaussian.from_network(torch.zeros(2, 3, dtype=torch.bfloat16), torch.zeros(2, 3))
    assert (wide.mean.dtype, wide.log_std.dtype) == (torch.float32, torch.float32)
    total = sum_per_image(torch.ones(2, 3, 5))
    assert total.dtype == torch.float64
    assert total.tolist() == [15.0, 15.0]
