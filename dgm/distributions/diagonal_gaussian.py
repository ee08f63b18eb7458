"""Gaussian with independent coordinates: posteriors and priors of latents, and standard normal noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dgm.distributions.precision import at_least_float32

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def standard_noise(
    shape: tuple[int, ...], generator: torch.Generator, like: Tensor, drawn_in: torch.dtype = torch.float32
) -> Tensor:
    """Standard normal draws from `generator`, with the device and type of `like`. Shapes: -> `shape`.

    drawn_in: precision of the draws before they are converted; float32 and float64 give different numbers.
    """
    return torch.randn(shape, generator=generator, device=generator.device, dtype=drawn_in).to(like)


@dataclass(frozen=True)
class DiagonalGaussian:
    """mean and log_std broadcast together, (N, ...), in float32 or wider."""

    mean: Tensor
    log_std: Tensor

    @classmethod
    def from_network(cls, mean: Tensor, log_std: Tensor) -> DiagonalGaussian:
        """The same in float32 where a network under autocast came out in half precision."""
        return cls(at_least_float32(mean), at_least_float32(log_std))

    @classmethod
    def standard(cls, like: Tensor) -> DiagonalGaussian:
        """N(0, I) of the shape of `like`."""
        zero = torch.zeros_like(like)
        return cls(zero, zero)

    def sample(self, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """One draw of each coordinate, its standard deviation times the temperature. Shapes: -> as mean."""
        noise = standard_noise(tuple(self.mean.shape), generator, self.mean)
        return self.mean + temperature * self.log_std.exp() * noise

    def log_density(self, z: Tensor) -> Tensor:
        """Natural-log density of each coordinate. Shapes: as z."""
        return -0.5 * ((z - self.mean) * torch.exp(-self.log_std)) ** 2 - self.log_std - HALF_LOG_TWO_PI

    def kl(self, prior: DiagonalGaussian) -> Tensor:
        """KL(self || prior) of each coordinate in nats, in closed form. Shapes: as mean."""
        log_ratio = prior.log_std - self.log_std
        distance = (self.mean - prior.mean) * torch.exp(-prior.log_std)
        return log_ratio + 0.5 * (torch.exp(-2 * log_ratio) + distance**2 - 1)
