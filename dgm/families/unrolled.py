"""Base class of DRAW and Conv DRAW: ELBO, importance weights, loss and sampler, all from one `unroll` over the steps.

A model implements `unroll` (posterior noise to the terms of the bound) and `generate` (prior noise to the likelihood).
Source: Gregor et al. (2015), arXiv 1502.04623, sections 2.2 and 2.3: loss of the latents summed over steps; sampler.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from dgm.distributions.discretized_logistic import sample_discretized_logistic
from dgm.distributions.kl_steps import kl_step_terms
from dgm.model_api.contracts import ConfigT, GradientTrained, LatentVariableModel, Objective
from dgm.nets.patch_pca import PatchPCA
from dgm.types import Images, ImageSpec


class UnrolledModel(GradientTrained[ConfigT], LatentVariableModel[ConfigT]):
    """q(z | x) = prod_t q(z_t | x, z before t), P(x | z) independent discretized logistics; the loss is -bound.

    linear: the fitted principal components that training starts from, if the model sets them.
    """

    hot_method = "unroll"

    def __init__(self, spec: ImageSpec, config: ConfigT) -> None:
        super().__init__(spec, config)
        self.linear: PatchPCA | None = None

    @abstractmethod
    def noise(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Standard normal draws for all latents. Shapes: -> (steps, N, ...), each step as its latents are."""

    @abstractmethod
    def unroll(self, images: Images, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log P(x | z) (N,), KL(q || p) and log p(z) - log q(z | x) of each step (N, steps); nats in float64.

        Shapes: noise as `noise` draws it, here that of the posteriors.
        """

    @abstractmethod
    def generate(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-scale of each sub-pixel's logistic, from the noise of the priors. Shapes: -> (N, C, H, W)."""

    def bound_terms(self, images: Images, generator: torch.Generator) -> Mapping[str, Tensor]:
        reconstruction, kl, _ = self.unroll(images, self.noise(len(images), generator))
        return {"reconstruction": reconstruction, **kl_step_terms(kl)}

    def objective(self, images: Images, generator: torch.Generator, progress: float) -> Objective:
        reconstruction, kl, _ = self.unroll(images, self.noise(len(images), generator))
        nats = reconstruction - kl.sum(dim=1)
        return Objective(loss=-nats, nats=nats.detach())

    def log_weights(self, images: Images, generator: torch.Generator) -> Tensor:
        reconstruction, _, log_ratio = self.unroll(images, self.noise(len(images), generator))
        return reconstruction + log_ratio.sum(dim=1)

    @torch.no_grad()
    def sample(self, num_images: int, generator: torch.Generator, temperature: float = 1.0) -> Images:
        mean, log_scale = self.generate(temperature * self.noise(num_images, generator))
        levels = sample_discretized_logistic(mean, log_scale, self.spec.levels, generator, temperature)
        return levels.to(torch.uint8)

    def num_parameters(self) -> int:
        """Those of the networks and, if there are any, of the principal components."""
        return super().num_parameters() + (0 if self.linear is None else self.linear.num_parameters())
