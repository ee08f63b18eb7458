"""Deep diffusion when it is scored: the same bound from the same weights, from better chosen steps than in training.

The sum over t of KL(f) - KL(0) is estimated from a few steps, weighed by one over their probability. That is unbiased
whatever the probability is, and has the least variance where it is in proportion to the difference. So a step comes up
in proportion to what the start costs the image there, KL(0) averaged over the noise, times the share of it that a
network wins back. That share is small where the noise is much finer than the detail of an image, and where it drowns
the image; the curve below was fitted to a network with a linear start on training images that were held out from it.
Source: importance sampling, e.g. Owen (2013), "Monte Carlo theory, methods and examples", chapter 9.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dgm.dequantization import dequantize
from dgm.distributions.diagonal_gaussian import standard_noise
from dgm.models.deep_diffusion.gaussian_reverse import BAND_NAMES, GaussianReverse
from dgm.models.deep_diffusion.model import DeepDiffusion
from dgm.types import Images

# The share won back, over log2 of the noise's standard deviation over the signal's: place and steepness of its edges.
RISE, RISE_STEEPNESS = -6.5, 1.2
FALL, FALL_STEEPNESS = -0.6, 2.1
LEAST_SHARE = 0.03  # of the largest: no step is so rare that its weight would outgrow the others'
STEPS_AT_ONCE = 100


def start_kl(start: GaussianReverse, y_0: Tensor) -> Tensor:
    """KL(0) of each step t = 2 ... T, averaged over the noise, in nats. Shapes: (N, D) -> (N, T - 1) float64."""
    table, square_y, parts = start.trajectory, y_0.double().square(), list[Tensor]()
    for t in torch.arange(2, table.num_steps + 1, device=y_0.device).split(STEPS_AT_ONCE):
        _, s = start.step(t)
        w = start.posterior_variance(t)
        square = table.beta[t, None] ** 2 * table.signal[t - 1, None] / start.diffused(t) ** 2 / s
        of_noise = (table.signal[t, None] / table.noise[t, None]) * start.variances**2
        rest = ((s / w).log() + w / s - 1 + square * of_noise).sum(dim=1)
        parts.append(0.5 * (square_y @ square.T + rest))
    return torch.cat(parts, dim=1)


class ScoredDeepDiffusion(DeepDiffusion):
    """Its `bound_terms` are those of DeepDiffusion in expectation; one image's do not depend on the other images'."""

    def step_probabilities(self, y_0: Tensor) -> Tensor:
        """How often step t = 2 ... T comes up for each image. Shapes: (N, D) -> (N, T - 1) float64, rows sum to one."""
        cost = start_kl(self.start, y_0)
        if self.config.has_linear_start:
            ratio = 0.5 * (self.trajectory.noise[2:] / self.trajectory.signal[2:]).log2()
            share = torch.sigmoid(RISE_STEEPNESS * (ratio - RISE)) * torch.sigmoid(FALL_STEEPNESS * (FALL - ratio))
            cost = cost * (share + LEAST_SHARE)
        return cost / cost.sum(dim=1, keepdim=True)

    def draw_steps(self, y_0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """num_evaluation_steps steps of each image, in equal strata, and their weights.

        Shapes: (N, D) -> (draws, N) int64, (draws, N) float64.
        """
        num_images, num_draws = len(y_0), self.config.num_evaluation_steps
        probability = self.step_probabilities(y_0)
        offset = torch.rand(num_images, num_draws, generator=generator, device=generator.device, dtype=torch.float64)
        place = ((torch.arange(num_draws, device=y_0.device) + offset.to(y_0.device)) / num_draws).contiguous()
        index = torch.searchsorted(probability.cumsum(dim=1), place, right=True).clamp(max=probability.shape[1] - 1)
        return index.T + 2, 1 / (num_draws * probability.gather(1, index).T)

    def bound_terms(self, images: Images, generator: torch.Generator) -> Mapping[str, Tensor]:
        if self.config.num_evaluation_steps == 0:
            return super().bound_terms(images, generator)
        y_0 = self.start.standardize(dequantize(images, generator, self.network.head.weight.dtype))
        kl = self.start.expected_kl(y_0)
        for t, weight in zip(*self.draw_steps(y_0, generator), strict=True):
            excess = weight * self.excess_kl(y_0, standard_noise(tuple(y_0.shape), generator, y_0), t)
            kl = kl.scatter_add(1, self.start.band[t, None], excess[:, None])
        return self.fixed_terms(y_0) | dict(zip(BAND_NAMES, -kl.T, strict=True))
