"""Models that give one number per image: a log-probability, a flow's log-density and a bound.

dgm prove examples/prove/one_number.py:flow --weights flow.pt
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from dgm.prove import Elbo, Flow, LogProb
from dgm.types import CIFAR10, ImageSpec


class Histogram(nn.Module):
    """Every sub-pixel on its own, one histogram for each channel."""

    def __init__(self, spec: ImageSpec = CIFAR10) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(spec.channels, spec.levels))

    def log_prob(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> nats (N,)."""
        of_level = self.logits.log_softmax(dim=-1)
        parts = [of_level[c][images[:, c].long()].flatten(1).sum(dim=1) for c in range(len(of_level))]
        return torch.stack(parts).sum(dim=0)


class AffineFlow(nn.Module):
    """A Gaussian for each sub-pixel, as a flow of one layer on x in [0, 1)."""

    def __init__(self, spec: ImageSpec = CIFAR10) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.full(spec.shape, -0.5))
        self.log_scale = nn.Parameter(torch.full(spec.shape, 1.4))

    def log_density(self, x: Tensor) -> Tensor:
        """x in [0, 1), (N, C, H, W) -> nats (N,): the density of z plus the log-determinant."""
        z = (x + self.shift) * self.log_scale.exp()
        return (-0.5 * (z**2 + math.log(2 * math.pi))).flatten(1).sum(dim=1) + self.log_scale.sum()


class NoisyHistogram(nn.Module):
    """A latent brightness of two values, and a histogram for each: the smallest latent-variable model."""

    def __init__(self, spec: ImageSpec = CIFAR10) -> None:
        super().__init__()
        self.dark, self.bright = Histogram(spec), Histogram(spec)
        self.log_odds = nn.Linear(1, 1)
        self.middle = (spec.levels - 1) / 2

    def elbo(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> one estimate of the bound in nats, (N,), by torch's own generator."""
        mean = images.to(self.log_odds.weight.dtype).flatten(1).mean(dim=1, keepdim=True) / self.middle - 1
        posterior = self.log_odds(mean).squeeze(1).sigmoid().clamp(0.01, 0.99)
        is_bright = torch.rand_like(posterior) < posterior
        log_q = torch.where(is_bright, posterior, 1 - posterior).log()
        log_p = torch.where(is_bright, self.bright.log_prob(images), self.dark.log_prob(images))
        return log_p - math.log(2) - log_q


def histogram(weights: Path) -> LogProb:
    """tiny: the same code for so few pixels that the probabilities of all images can be summed."""
    spec = ImageSpec(1, 1, 2, levels=5)
    model = Histogram()
    model.load_state_dict(torch.load(weights, weights_only=True))
    small = Histogram(spec)
    return LogProb(model, model.log_prob, tiny=lambda: LogProb(small, small.log_prob, spec))


def flow(weights: Path) -> Flow:
    """The range of x decides the unit: with (0, 1) the density loses log 256 for each sub-pixel in grey levels."""
    spec = ImageSpec(1, 1, 2, levels=5)
    model, small = AffineFlow(), AffineFlow(spec)
    model.load_state_dict(torch.load(weights, weights_only=True))
    tiny = Flow(small, low=0.0, high=1.0, log_density=small.log_density, spec=spec)
    return Flow(model, low=0.0, high=1.0, log_density=model.log_density, tiny=lambda: tiny)


def bound(weights: Path) -> Elbo:
    """Noise from torch's own generator: `dgm prove` seeds it."""
    spec = ImageSpec(1, 1, 2, levels=5)
    model, small = NoisyHistogram(), NoisyHistogram(spec)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return Elbo(model, model.elbo, tiny=lambda: Elbo(small, small.elbo, spec))
