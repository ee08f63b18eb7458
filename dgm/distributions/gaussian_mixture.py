"""Many Gaussians of moderate dimension at once: densities and weighted moments as matrix products with x x^T.

Points are columns, (d, N), so that the products x_i x_j with i <= j are built from whole rows. Float64 throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgm.distributions.gaussian import LOG_TWO_PI, cholesky

NEGLIGIBLE = 1e-40


@dataclass(frozen=True)
class WeightedMoments:
    """Sums over points weighted by responsibilities: 1, x and x_i x_j (i <= j). Shapes: (K,), (K, d), (K, d(d+1)/2)."""

    counts: Tensor
    sums: Tensor
    products: Tensor

    @staticmethod
    def total(parts: Sequence[WeightedMoments]) -> WeightedMoments:
        """Moments of the same components over all the parts' points."""
        return WeightedMoments(
            sum((part.counts for part in parts[1:]), start=parts[0].counts),
            sum((part.sums for part in parts[1:]), start=parts[0].sums),
            sum((part.products for part in parts[1:]), start=parts[0].products),
        )

    @staticmethod
    def concatenated(parts: Sequence[WeightedMoments]) -> WeightedMoments:
        """Moments of all the parts' components."""
        return WeightedMoments(
            torch.cat([part.counts for part in parts]),
            torch.cat([part.sums for part in parts]),
            torch.cat([part.products for part in parts]),
        )


def posterior(joint: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Each component's share of a point, and the log of the sum over components, `dim` gone, in nats.

    Shares below NEGLIGIBLE become 0: products with numbers too small to be normalised take ten times as long.
    Shapes: joint log-densities (..., K, ...) -> the same, (...).
    """
    log_density = joint.logsumexp(dim=dim, keepdim=True)
    shares = (joint - log_density).exp()
    return shares.masked_fill_(shares < NEGLIGIBLE, 0.0), log_density.squeeze(dim)


def pair_products(x: Tensor) -> Tensor:
    """x_i x_j for i <= j. Shapes: (d, N) -> (d(d+1)/2, N)."""
    dim = len(x)
    products = x.new_empty(dim * (dim + 1) // 2, x.shape[1])
    filled = 0
    for i in range(dim):  # in the order of torch.triu_indices
        torch.mul(x[i:], x[i], out=products[filled : filled + dim - i])
        filled += dim - i
    return products


def weighted_moments(x: Tensor, products: Tensor, responsibilities: Tensor) -> WeightedMoments:
    """Shapes: (d, N), its pair_products, (K, N) -> moments of K components."""
    return WeightedMoments(responsibilities.sum(dim=1), responsibilities @ x.T, responsibilities @ products.T)


def component_log_densities(x: Tensor, products: Tensor, means: Tensor, inverse_factors: Tensor) -> Tensor:
    """log N(x; mean_k, covariance_k), covariance_k^-1 = F_k^T F_k with F_k lower triangular.

    Shapes: (d, N), its pair_products, (K, d), (K, d, d) -> (K, N).
    """
    precisions = inverse_factors.transpose(1, 2) @ inverse_factors
    rows, columns = torch.triu_indices(len(x), len(x), device=x.device)
    quadratic = precisions[:, rows, columns] * torch.where(rows == columns, 1.0, 2.0).to(precisions.dtype)
    linear = torch.einsum("kij,kj->ki", precisions, means)
    constant = (
        inverse_factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        - 0.5 * (linear * means).sum(dim=1)
        - 0.5 * len(x) * LOG_TWO_PI
    )
    return torch.addmm(constant.unsqueeze(1), linear, x).addmm_(quadratic, products, alpha=-0.5)


def estimate(
    moments: WeightedMoments, prior_means: Tensor, prior_covariances: Tensor, pseudo_counts: float, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Means, covariances and inverse factors of greatest likelihood, given `pseudo_counts` points of the prior too.

    Shapes: prior_means (d,) or (K, d), prior_covariances (d, d) or (K, d, d) -> (K, d), (K, d, d), (K, d, d).
    Raises: NotPositiveDefiniteError naming the components, e.g. those that have lost their points.
    """
    counts = (moments.counts + pseudo_counts).clamp(min=1e-300).unsqueeze(1)
    means = (moments.sums + pseudo_counts * prior_means) / counts
    dim = means.shape[1]
    rows, columns = torch.triu_indices(dim, dim, device=means.device)
    second = torch.zeros(len(means), dim, dim, dtype=means.dtype, device=means.device)
    second[:, rows, columns] = moments.products
    second[:, columns, rows] = moments.products
    second += pseudo_counts * (prior_covariances + prior_means[..., :, None] * prior_means[..., None, :])
    covariances = second / counts.unsqueeze(2) - means[:, :, None] * means[:, None, :]
    factors = cholesky(covariances, name)
    identity = torch.eye(dim, dtype=means.dtype, device=means.device)
    return means, covariances, torch.linalg.solve_triangular(factors, identity.expand_as(factors), upper=False)
