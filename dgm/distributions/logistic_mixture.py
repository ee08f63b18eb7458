"""Mixture of discretized logistics over the channels of a pixel, the components shared by the channels.

Given a component, the mean of channel c is shifted by a linear function of the pixel's earlier channels; the component
itself is never seen, so channel after channel its weights follow Bayes' rule.
Source: Salimans et al. (2017), arXiv 1701.05517, sections 2.1 and 2.2.
Differs: any number of channels and levels; bins by the exact identity of `dgm.distributions.discretized_logistic`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgm.distributions.discretized_logistic import (
    discretized_logistic_log_pmf,
    discretized_logistic_log_prob,
    unit_from_levels,
)
from dgm.distributions.logistic_mixture_pmf import logistic_mixture_log_pmf
from dgm.distributions.precision import at_least_float32

MIN_LOG_SCALE = -7.0  # the authors' code; about a ninth of a grey level at 256 levels
INITIAL_LOG_SCALE = -1.5  # 28 grey levels of 256, near the spread of all pixels: training starts below 8 bits


def num_mixture_parameters(channels: int, num_mixtures: int) -> int:
    """Numbers per pixel. Of each component: a weight, `channels` means and log-scales, and a coefficient per pair."""
    return num_mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)


def initial_mixture_parameters(channels: int, num_mixtures: int) -> Tensor:
    """Where a network's outputs do well to start: grey means, wide scales, each channel following the one before.

    Shapes: -> (num_mixture_parameters,).
    """
    groups = torch.zeros(num_mixture_parameters(channels, 1), num_mixtures)
    groups[1 + channels : 1 + 2 * channels] = INITIAL_LOG_SCALE
    for channel in range(1, channels):
        groups[2 * channels + channel * (channel + 1) // 2] = 1.0  # the pair (channel on channel - 1)
    return groups.flatten()


@dataclass(frozen=True)
class LogisticMixture:
    """The joint distribution of a pixel's channels, for any number of pixels at once.

    Shapes: log_weights (..., M), normalised; means and log_scales (..., C, M); coefficients (..., C (C - 1) / 2, M) in
    (-1, 1), ordered (1 on 0), (2 on 0), (2 on 1), ...; all in [-1, 1] units.
    """

    log_weights: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor
    levels: int

    @classmethod
    def from_parameters(cls, parameters: Tensor, channels: int, levels: int) -> LogisticMixture:
        """The mixture that a network's outputs stand for. Shapes: (..., num_mixture_parameters), any real numbers."""
        groups = at_least_float32(parameters).unflatten(-1, (num_mixture_parameters(channels, 1), -1))
        num_pairs = channels * (channels - 1) // 2
        logits, means, log_scales, coefficients = groups.split([1, channels, channels, num_pairs], dim=-2)
        return cls(
            log_weights=torch.log_softmax(logits.squeeze(-2), dim=-1),
            means=means,
            log_scales=log_scales.clamp(min=MIN_LOG_SCALE),
            coefficients=torch.tanh(coefficients),
            levels=levels,
        )

    def log_prob(self, values: Tensor) -> Tensor:
        """Natural-log probability of each pixel, without its pmf. Shapes: integers (..., C) -> (...)."""
        return torch.logsumexp(self.log_weights + self._log_prob_of_components(values).sum(dim=-2), dim=-1)

    def log_pmf(self, values: Tensor) -> Tensor:
        """Conditionals of every channel given the values of the earlier ones. Shapes: (..., C) -> (..., C, levels)."""
        joint = self.log_weights.unsqueeze(-2) + _sum_of_earlier(self._log_prob_of_components(values), dim=-2)
        log_weights, means = torch.log_softmax(joint, dim=-1), self._conditional_means(values)
        log_pmf = torch.full((), -torch.inf, dtype=means.dtype, device=means.device)
        for m in range(means.shape[-1]):  # one component at a time: all at once would take M times the memory
            component = discretized_logistic_log_pmf(means[..., m], self.log_scales[..., m], self.levels)
            log_pmf = torch.logaddexp(log_pmf, log_weights[..., m].unsqueeze(-1) + component)
        return log_pmf

    def _log_prob_of_components(self, values: Tensor) -> Tensor:
        """Shapes: (..., C) -> (..., C, M)."""
        means = self._conditional_means(values)
        return discretized_logistic_log_prob(values.unsqueeze(-1), means, self.log_scales, self.levels)

    def _conditional_means(self, values: Tensor) -> Tensor:
        """Shapes: (..., C) -> (..., C, M)."""
        x = unit_from_levels(values, self.levels, self.means.dtype).unsqueeze(-1)
        means = [self.means[..., 0, :]]
        for channel in range(1, values.shape[-1]):
            means.append(self.conditional_mean(channel, x[..., :channel, :]))
        return torch.stack(torch.broadcast_tensors(*means), dim=-2)

    def conditional_mean(self, channel: int, earlier: Tensor) -> Tensor:
        """Shapes: positions of the earlier channels (..., channel, 1) -> (..., M)."""
        first = channel * (channel - 1) // 2
        shift = (self.coefficients[..., first : first + channel, :] * earlier).sum(dim=-2)
        return self.means[..., channel, :] + shift


class MixtureChain:
    """The channels of a pixel one at a time: P(first), P(second | first), ...

    Shapes: for a mixture of N pixels (N, ...), log_pmf() is (N, levels) and push takes (N,) integers.
    """

    def __init__(self, mixture: LogisticMixture) -> None:
        self.mixture = mixture
        self.channel = 0
        self.joint = mixture.log_weights  # log P(component, channels so far), (N, M)
        self.earlier: list[Tensor] = []
        self.mean = mixture.means[:, 0]

    def log_pmf(self) -> Tensor:
        """Natural-log probabilities of the next channel. Shapes: -> (N, levels)."""
        log_weights, log_scales = torch.log_softmax(self.joint, dim=-1), self.mixture.log_scales[:, self.channel]
        return logistic_mixture_log_pmf(log_weights, self.mean, log_scales, self.mixture.levels)

    def push(self, values: Tensor) -> None:
        """Fixes the next channel; the weights become those of the components given it. Shapes: (N,) integers."""
        mixture, log_scale = self.mixture, self.mixture.log_scales[:, self.channel]
        component = discretized_logistic_log_prob(values.unsqueeze(-1), self.mean, log_scale, mixture.levels)
        self.joint = self.joint + component
        self.earlier.append(unit_from_levels(values, mixture.levels, self.mean.dtype))
        self.channel += 1
        if self.channel < mixture.means.shape[1]:
            self.mean = mixture.conditional_mean(self.channel, torch.stack(self.earlier, dim=1).unsqueeze(-1))


def _sum_of_earlier(x: Tensor, dim: int) -> Tensor:
    """Exclusive cumulative sum. Shapes: unchanged."""
    return torch.cat([torch.zeros_like(x.narrow(dim, 0, 1)), x.cumsum(dim).narrow(dim, 0, x.shape[dim] - 1)], dim=dim)
