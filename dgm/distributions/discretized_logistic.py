"""Logistic distribution integrated over the bins of a grid of levels; its probabilities sum to one exactly.

Means and scales are in [-1, 1] units: level v sits at 2 v / (levels - 1) - 1 and its bin reaches 1 / (levels - 1) to
either side; the first and the last bin also take the whole tail beyond them.
Source: Salimans et al. (2017), arXiv 1701.05517, section 2.1.
Differs: no clipping and no density in place of small probabilities, but the identity
sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), exact in the logarithm at any mean and scale.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.distributions.precision import at_least_float32

LOG_SCALE_OF_UNIT_VARIANCE = math.log(math.sqrt(3) / math.pi)
LOG_SCALE_RANGE = (-8.0, 3.0)  # that decoders of latents are held to, in units where the levels span [-1, 1]

MAX_ABS_LOG_SCALE = 20.0  # beyond it probabilities do not change, but exp can overflow and make gradients non-finite


def unit_from_levels(values: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Positions of the levels on [-1, 1]. Shapes: unchanged; any integer or float type -> `dtype`."""
    return values.to(dtype) * (2.0 / (levels - 1)) - 1.0


def levels_from_unit(x: Tensor, levels: int) -> Tensor:
    """The level whose bin holds each position, tails folded in. Shapes: unchanged; float -> int64."""
    return ((x + 1.0) * ((levels - 1) / 2.0) + 0.5).floor().clamp(0, levels - 1).long()


def log1mexp(a: Tensor) -> Tensor:
    """log(1 - exp(-a)) for a > 0, accurate and with a finite gradient at both ends. Shapes: unchanged."""
    small = torch.log(-torch.expm1(-a.clamp(max=math.log(2.0))))
    large = torch.log1p(-torch.exp(-a.clamp(min=math.log(2.0))))
    return torch.where(a <= math.log(2.0), small, large)


def discretized_logistic_log_prob(values: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """Natural-log probability of each level under its own logistic, in float32 or wider.

    Shapes: values (any integer type, in [0, levels)), mean and log_scale broadcast together -> the common shape.
    """
    mean, log_scale = at_least_float32(mean), at_least_float32(log_scale)  # half precision has 3 digits
    half_bin = 1.0 / (levels - 1)
    inverse_scale = torch.exp(-log_scale.clamp(-MAX_ABS_LOG_SCALE, MAX_ABS_LOG_SCALE))
    centred = unit_from_levels(values, levels, mean.dtype) - mean
    above_lower_edge = F.softplus((centred - half_bin) * inverse_scale)
    below_upper_edge = F.softplus((-centred - half_bin) * inverse_scale)
    inside = log1mexp(2.0 * half_bin * inverse_scale) - above_lower_edge - below_upper_edge
    return torch.where(values == 0, -below_upper_edge, torch.where(values == levels - 1, -above_lower_edge, inside))


def discretized_logistic_log_pmf(mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """Natural-log probabilities of all levels. Shapes: (...) and (...) -> (..., levels)."""
    values = torch.arange(levels, device=mean.device)
    return discretized_logistic_log_prob(values, mean.unsqueeze(-1), log_scale.unsqueeze(-1), levels)


def sample_discretized_logistic(
    mean: Tensor, log_scale: Tensor, levels: int, generator: torch.Generator, temperature: float = 1.0
) -> Tensor:
    """One level drawn from each logistic, its scale times the temperature. Shapes: (...) and (...) -> (...) int64."""
    uniforms = torch.rand(mean.shape, generator=generator, device=generator.device, dtype=torch.float64)
    noise = torch.logit(uniforms.to(mean.device), eps=1e-12)
    return levels_from_unit(mean + temperature * log_scale.exp() * noise, levels)
