"""All levels of a mixture of discretized logistics at once, for sampling and coding: one exponential per bin edge.

The probabilities are added up as they are and not as logarithms. What is too small for that comes from the logarithms.
Source: the identity of `dgm.distributions.discretized_logistic`; with t = exp(-a) both sigmoids of an edge a are ratios
of t: sigmoid(a) = 1 / (1 + t) and sigmoid(-a) = t / (1 + t), without a difference that cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dgm.distributions.discretized_logistic import MAX_ABS_LOG_SCALE, discretized_logistic_log_prob
from dgm.distributions.precision import at_least_float32

CHUNK_NUMBERS = 2**18  # of a temporary array: larger ones leave the cache, and the system clears their memory anew
Sigmoids = Callable[[Tensor], tuple[Tensor, Tensor]]

SOFTPLUS_THRESHOLD = 20.0  # beyond it F.softplus, of which the logarithms are made, is linear
CLAMPED, SMALLEST = 0.9, 0.7  # exponents, in parts of the type's range: of the edges, and of what their sums can tell


def logistic_mixture_pmf(weights: Tensor, means: Tensor, log_scales: Tensor, levels: int) -> Tensor:
    """Probabilities of all levels; of those below `smallest_probability` only that they are so small is right.

    Shapes: (N, M) each -> (N, levels), float32 or wider.
    """
    return _pmf(_sigmoids, weights, means, log_scales, levels)


def logistic_mixture_log_pmf(log_weights: Tensor, means: Tensor, log_scales: Tensor, levels: int) -> Tensor:
    """Natural-log probabilities of all levels, however small. Shapes: (N, M) each -> (N, levels), float32 or wider."""
    sigmoids = _sigmoids if means.dtype == torch.float32 else _sigmoids_of_softplus
    pmf = _pmf(sigmoids, log_weights.exp(), means, log_scales, levels)
    is_small = pmf < smallest_probability(pmf.dtype)
    log_pmf = pmf.log_()
    if bool(is_small.any()):
        rows, values = is_small.nonzero(as_tuple=True)
        components = discretized_logistic_log_prob(values.unsqueeze(1), means[rows], log_scales[rows], levels)
        log_pmf[rows, values] = torch.logsumexp(log_weights[rows] + components, dim=1)
    return log_pmf


def smallest_probability(dtype: torch.dtype) -> float:
    """Sums of probabilities of this type are exact, but for rounding, from here on."""
    return math.exp(-SMALLEST * _largest_exponent(dtype))


def _largest_exponent(dtype: torch.dtype) -> float:
    return -math.log(torch.finfo(dtype).tiny)


def _pmf(sigmoids: Sigmoids, weights: Tensor, means: Tensor, log_scales: Tensor, levels: int) -> Tensor:
    means, log_scales = at_least_float32(means), at_least_float32(log_scales)
    pmf = means.new_empty(len(means), levels)
    size = max(1, CHUNK_NUMBERS // (means.shape[1] * levels))
    arrays = (x.split(size) for x in (weights.to(means.dtype), means, log_scales, pmf))
    for of_weights, of_means, of_log_scales, out in zip(*arrays, strict=True):
        _pmf_of_chunk(sigmoids, of_weights, of_means, of_log_scales, out)
    return pmf


def _pmf_of_chunk(sigmoids: Sigmoids, weights: Tensor, means: Tensor, log_scales: Tensor, pmf: Tensor) -> None:
    """Writes the probabilities into `pmf`."""
    levels = pmf.shape[1]
    bin_width = 2.0 / (levels - 1)
    edges = torch.arange(1, levels, dtype=torch.float64, device=means.device) * bin_width - (1 + bin_width / 2)
    inverse_scales = torch.exp(-log_scales.clamp(-MAX_ABS_LOG_SCALE, MAX_ABS_LOG_SCALE))
    limit = CLAMPED * _largest_exponent(means.dtype)
    t = (means.unsqueeze(-1) - edges.to(means.dtype)).mul_(inverse_scales.unsqueeze(-1)).clamp_(-limit, limit).exp_()
    below, above = sigmoids(t)
    pmf[:, 0] = (weights * below[..., 0]).sum(dim=1)
    pmf[:, -1] = (weights * above[..., -1]).sum(dim=1)
    inside = below[..., 1:].mul_(above[..., :-1])
    weights = weights * -torch.expm1(-bin_width * inverse_scales)
    one = means.shape[1] == 1
    pmf[:, 1:-1] = inside[:, 0].mul_(weights) if one else torch.bmm(weights.unsqueeze(1), inside).squeeze(1)


def _sigmoids(t: Tensor) -> tuple[Tensor, Tensor]:
    """Of a component's mass, what lies below and above each edge a, from t = exp(-a), which is overwritten."""
    below = (t + 1).reciprocal_()
    return below, t.mul_(below)


def _sigmoids_of_softplus(t: Tensor) -> tuple[Tensor, Tensor]:
    """The same to the last digit of F.softplus, which drops what only float64 can tell. Shapes: unchanged."""
    below, far = (t + 1).reciprocal_(), math.exp(SOFTPLUS_THRESHOLD)
    return torch.where(t > far, t.reciprocal(), below), torch.where(t < 1 / far, t, t * below)
