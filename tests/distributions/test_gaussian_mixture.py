from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from dgm.distributions.gaussian import NotPositiveDefiniteError
from dgm.distributions.gaussian_mixture import (
    WeightedMoments,
    component_log_densities,
    estimate,
    pair_products,
    posterior,
    weighted_moments,
)
from dgm.seeds import generator_for

ZERO, EYE = torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)


def points(num_points: int, seed: int = 0) -> torch.Tensor:
    mix = torch.randn(4, 4, generator=generator_for(seed, 1), dtype=torch.float64)
    return mix @ torch.randn(4, num_points, generator=generator_for(seed), dtype=torch.float64) + 0.5


def test_densities_are_scipys() -> None:
    x, data = points(9), [points(30, seed) for seed in (1, 2, 3)]
    covariances = torch.stack([torch.cov(part) for part in data])
    means = torch.stack([part.mean(dim=1) for part in data])
    inverse_factors = torch.linalg.inv(torch.linalg.cholesky(covariances))
    actual = component_log_densities(x, pair_products(x), means, inverse_factors)
    for k in range(3):
        oracle = multivariate_normal(means[k].numpy(), covariances[k].numpy())  # type: ignore[arg-type]
        np.testing.assert_allclose(actual[k].numpy(), oracle.logpdf(x.T.numpy()), atol=1e-9)


def test_estimates_are_numpys_weighted_moments() -> None:
    x = points(50)
    weights = torch.rand(2, 50, generator=generator_for(4), dtype=torch.float64)
    moments = weighted_moments(x, pair_products(x), weights)
    means, covariances, inverse_factors = estimate(moments, ZERO, EYE, 0.0, "component")
    for k in range(2):
        np.testing.assert_allclose(means[k].numpy(), np.average(x.numpy(), axis=1, weights=weights[k].numpy()))
        expected = np.cov(x.numpy(), aweights=weights[k].numpy(), ddof=0)
        np.testing.assert_allclose(covariances[k].numpy(), expected, atol=1e-12)
        precision = inverse_factors[k].T @ inverse_factors[k]
        np.testing.assert_allclose(precision.numpy(), np.linalg.inv(expected), rtol=1e-8)


def test_parts_add_up() -> None:
    x = points(20)
    weights = torch.rand(2, 20, generator=generator_for(4), dtype=torch.float64)
    whole = weighted_moments(x, pair_products(x), weights)
    halves = [
        weighted_moments(x[:, part], pair_products(x[:, part]), weights[:, part])
        for part in (slice(0, 7), slice(7, 20))
    ]
    total = WeightedMoments.total(halves)
    torch.testing.assert_close(total.products, whole.products)
    torch.testing.assert_close(total.sums, whole.sums)
    assert WeightedMoments.concatenated(halves).counts.shape == (4,)


def test_pseudo_counts_are_points_of_the_prior() -> None:
    """Twelve points and five more, drawn so that their moments are exactly the prior's, give the same estimate."""
    x, prior_mean = points(12), torch.arange(4, dtype=torch.float64)
    prior_covariance = torch.cov(points(9, seed=8))
    simplex = torch.from_numpy(np.linalg.qr(np.eye(5) - 0.2)[0][:, :4]) * math.sqrt(5)  # mean 0, covariance I
    drawn = prior_mean.unsqueeze(1) + torch.linalg.cholesky(prior_covariance) @ simplex.T
    both = torch.cat([x, drawn], dim=1)
    moments = weighted_moments(x, pair_products(x), torch.ones(1, 12, dtype=torch.float64))
    of_both = weighted_moments(both, pair_products(both), torch.ones(1, 17, dtype=torch.float64))
    actual = estimate(moments, prior_mean, prior_covariance, 5.0, "component")
    for a, b in zip(actual, estimate(of_both, ZERO, EYE, 0.0, "component"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_shares_sum_to_one_and_are_never_denormal() -> None:
    joint = torch.tensor([[0.0, -1000.0, 5.0], [0.0, 0.0, 5.0 + math.log(3.0)], [-700.0, -1.0, -735.0]]).double()
    shares, log_density = posterior(joint, dim=0)
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(log_density, joint.logsumexp(dim=0))
    torch.testing.assert_close(shares[:, 2], torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64))
    assert float(shares[shares > 0].min()) > 1e-300


def test_a_component_without_points_is_refused_by_name() -> None:
    x = points(20)
    weights = torch.stack([torch.ones(20), torch.zeros(20)]).double()
    moments = weighted_moments(x, pair_products(x), weights)
    with pytest.raises(NotPositiveDefiniteError, match=r"the covariance of X \(matrices 1\)"):
        estimate(moments, ZERO, EYE, 0.0, "the covariance of X")
