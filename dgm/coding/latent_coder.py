"""Latents of one step on a stack coder: taken off it under their posterior, put back under their prior, and undone.

A latent becomes one of the places of a grid that is as fine as the prior is wide (normal_grid.py), so that the prior
codes it whatever the posterior is. Taking it off the stack under the posterior N(m, s) goes in two parts: noise e on a
finer grid comes off under N(0, 1), m + s e falls into a place, and which of the noises of this place it was goes back,
uniformly. What is left over is exactly the probability that the posterior gives to the place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgm.coding.normal_grid import NormalGrid, pop_uniform, push_uniform
from dgm.errors import StageError
from dgm.model_api.latent_steps import Gaussian, Posterior

PRIOR_REACH = 32  # standard deviations: a latent beyond them would be cut off
NOISE_REACH = 7  # no more, so that all noises can be counted in 24 bits
NOISE_BITS = 5  # 32 noises in a place where the posterior is as wide as the prior; more where it is narrower


class UnusableLatentsError(StageError):
    """Numbers that are not finite, or latents that cannot have been drawn."""

    def __init__(self) -> None:
        super().__init__("the model's latents are not finite numbers: its weights are not usable; train it again")


@dataclass(frozen=True)
class Normal:
    """A Gaussian over the latents of a step, flat: float64 (D,) each."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, gaussian: Gaussian) -> Normal:
        """Raises: UnusableLatentsError if a number is not finite."""
        mean, log_std = (part.double().cpu().numpy().ravel() for part in torch.broadcast_tensors(*gaussian))
        if not (np.isfinite(mean).all() and np.isfinite(log_std).all()):
            raise UnusableLatentsError
        return cls(mean, np.exp(log_std))


class LatentCoder:
    """A stack with the grids of one file. bits: the places of a latent are 2^-bits of its prior's deviation apart."""

    def __init__(self, stack: Any, bits: int) -> None:
        self.stack = stack  # constriction's AnsCoder
        self.places = NormalGrid(bits, PRIOR_REACH)
        self.noises = NormalGrid(bits + NOISE_BITS, NOISE_REACH)
        self.fewest_words: int = stack.num_words()  # that the stack ever had

    def latents(self, prior: Gaussian, index: np.ndarray) -> Tensor:
        """The latents at these places. Shapes: int64 (D,) -> float64, as the prior's."""
        normal, shape = Normal.of(prior), torch.broadcast_shapes(prior[0].shape, prior[1].shape)
        z = torch.from_numpy(normal.mean + normal.std * self.places.position(index))
        return z.view(shape).to(prior[0].device)

    def pop_posterior(self, prior: Gaussian, posterior: Posterior) -> np.ndarray:
        """Places drawn from the posterior by what the stack holds. Shapes: -> int64 (D,)."""
        normal = Normal.of(prior)
        noise = self.noises.pop(self.stack, len(normal.mean))
        self.fewest_words = min(self.fewest_words, self.stack.num_words())
        index = self._settle(prior, normal, posterior, noise)
        first, count = self._noises_of(normal, Normal.of(posterior(self.latents(prior, index))), index)
        push_uniform(self.stack, noise - first, count)
        return index

    def push_posterior(self, prior: Gaussian, posterior: Posterior, index: np.ndarray) -> None:
        """Undoes pop_posterior. Raises: UnusableLatentsError if the posterior cannot have led to these latents."""
        first, count = self._noises_of(Normal.of(prior), Normal.of(posterior(self.latents(prior, index))), index)
        if not (count > 0).all():
            raise UnusableLatentsError
        self.noises.push(self.stack, first + pop_uniform(self.stack, count))

    def push_prior(self, index: np.ndarray) -> None:
        """Puts the places onto the stack at their cost under the prior."""
        self.places.push(self.stack, index)

    def pop_prior(self, prior: Gaussian) -> np.ndarray:
        """Undoes push_prior. Shapes: -> int64 (D,)."""
        return self.places.pop(self.stack, int(np.prod(torch.broadcast_shapes(prior[0].shape, prior[1].shape))))

    def _settle(self, prior: Gaussian, normal: Normal, posterior: Posterior, noise: np.ndarray) -> np.ndarray:
        """The places that the noise leads to. Where the posterior is autoregressive, by Jacobi iteration.

        Latent i is right after i + 1 passes at most. Independent latents take two passes.
        """
        index = np.zeros(len(noise), np.int64)
        for _ in range(len(noise) + 2):
            found = self._places_of(normal, Normal.of(posterior(self.latents(prior, index))), noise)
            if np.array_equal(found, index):
                return index
            index = found
        raise StageError("a posterior is not autoregressive: its latents do not settle")

    def _places_of(self, prior: Normal, posterior: Normal, noise: np.ndarray) -> np.ndarray:
        """The place that holds each noise; by arithmetic first, then by the ends that the decoder goes by too."""
        z = posterior.mean + posterior.std * self.noises.position(noise)
        index = self.places.index_at((z - prior.mean) / prior.std)
        while True:
            first, count = self._noises_of(prior, posterior, index)
            step = (noise >= first + count).astype(np.int64) - (noise < first)
            if not step.any():
                return index
            index = index + step

    def _noises_of(self, prior: Normal, posterior: Normal, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The noises that fall into each place: the first, and how many. Shapes: int64 (D,) each."""
        ends = [
            self.noises.places_below(
                (prior.mean - posterior.mean + prior.std * self.places.lower_edge(place)) / posterior.std
            )
            for place in (index, index + 1)
        ]
        return ends[0], ends[1] - ends[0]
