"""The latents of a model step by step, from the top down, as bits-back coding takes them.

A step is what one prior and one posterior cover: a layer of a ladder, a glimpse, or all latents at once. Without images
the steps give p(z_t | z before t) and, after the last one, P(x | z): what the decoder of a file knows. With images they
give q(z_t | x, z before t) too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from dgm.model_api.contracts import AutoregressiveModel, Model
from dgm.types import Images

Gaussian: TypeAlias = tuple[Tensor, Tensor]  # mean and log of the standard deviation of each latent of a step
Posterior: TypeAlias = Callable[[Tensor], Gaussian]
"""Latents of a step -> the Gaussian of each of them given those before it in the order of the posterior.

Where a posterior is a product of independent Gaussians, the answer does not depend on the latents. Where it is an
autoregressive flow, that of a latent depends on earlier ones only, to the last bit.
"""


class LatentSteps(ABC):
    """One batch on its way through the steps. Equal calls give bit-equal numbers, with images and without."""

    num_steps: int

    @abstractmethod
    def prior(self) -> Gaussian:
        """p(z_t | z before t) of the next step. Shapes: as the latents of the step, (N, ...)."""

    @abstractmethod
    def posterior(self) -> Posterior:
        """q(z_t | x, z before t) of the next step. Raises: ValueError if the steps know no images."""

    @abstractmethod
    def push(self, z: Tensor) -> None:
        """Fixes the latents of the next step. Shapes: float64, as the prior's."""

    @abstractmethod
    def log_pmf(self) -> Tensor:
        """Natural-log probabilities of all levels given all latents. Shapes: -> (N, C, H, W, levels)."""


@runtime_checkable
class HasLatentSteps(Protocol):
    """A latent-variable model whose bound bits-back coding makes a file of."""

    def latent_steps(self, num_images: int, images: Images | None = None) -> LatentSteps:
        """The steps of `num_images` images, before the first. Shapes: images uint8 (N, C, H, W)."""
        ...


def can_compress(kind: type[Model]) -> bool:
    """Whether images can be coded with models of this class: by exact conditionals, or by bits-back."""
    return issubclass(kind, AutoregressiveModel) or issubclass(kind, HasLatentSteps)


def fixed(gaussian: Gaussian | None) -> Posterior:
    """A posterior whose latents are independent. Raises: ValueError if there is none."""
    if gaussian is None:
        raise ValueError("a posterior needs the images: give them to latent_steps")
    return lambda z: gaussian
