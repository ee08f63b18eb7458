"""The ladder's way down one layer at a time, for bits-back coding.

Given the latents before it in the flow's order, a latent of an inverse autoregressive flow is Gaussian: from
z = (u - m) exp(-s), with u Gaussian and m, s of earlier coordinates of u, its mean is (mean of u - m) exp(-s).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dgm.distributions.diagonal_gaussian import DiagonalGaussian
from dgm.distributions.discretized_logistic import discretized_logistic_log_pmf
from dgm.errors import StageError
from dgm.model_api.latent_steps import Gaussian, LatentSteps, Posterior
from dgm.models.vae_iaf.bidirectional_layer import LOG_STD_RANGE, Evidence
from dgm.models.vae_iaf.inverse_autoregressive import InverseAutoregressiveStep

if TYPE_CHECKING:
    from dgm.models.vae_iaf.model import VAEIAF

REACH = 16  # standard deviations: what is drawn before the flow is within them, and the search for it need not leave


class LadderSteps(LatentSteps):
    """evidence, frames: of each layer from the top down, as the model finds them in images; none without images."""

    def __init__(
        self,
        model: VAEIAF,
        num_images: int,
        evidence: Sequence[Evidence],
        frames: Sequence[DiagonalGaussian | None],
    ) -> None:
        self.model, self.num_steps, self.evidence, self.frames = model, model.config.num_layers, evidence, frames
        stride = model.config.stem_stride
        self.h = model.top.expand(num_images, -1, model.spec.height // stride, model.spec.width // stride)
        self.latents: list[Tensor] = []

    def prior(self) -> Gaussian:
        prior, _, _ = self.model.layers[len(self.latents)].read(self.h)
        return prior.mean, prior.log_std

    def posterior(self) -> Posterior:
        if not self.evidence:
            raise ValueError("a posterior needs the images: give them to latent_steps")
        index = len(self.latents)
        layer, up = self.model.layers[index], self.evidence[index]
        _, down, _ = layer.read(self.h)
        log_std = (up.log_std + down.log_std).clamp(*LOG_STD_RANGE)
        start = DiagonalGaussian.from_network(up.mean + down.mean, log_std)
        return FlowPosterior(layer.flow, start, up.context + down.context, self.frames[index])

    def push(self, z: Tensor) -> None:
        layer = self.model.layers[len(self.latents)]
        _, _, deterministic = layer.read(self.h)
        self.latents.append(z.to(self.model.top))
        self.h = layer.write(self.h, self.latents[-1], deterministic)

    def log_pmf(self) -> Tensor:
        return discretized_logistic_log_pmf(*self.model.decode(self.h, self.latents), self.model.spec.levels)


class FlowPosterior:
    """The posterior of one layer: start, through the flow, within the linear frame if there is one."""

    def __init__(
        self, flow: InverseAutoregressiveStep, start: DiagonalGaussian, context: Tensor, frame: DiagonalGaussian | None
    ) -> None:
        self.flow, self.context, self.dtype = flow, context, start.mean.dtype
        self.mean, self.log_std = start.mean.double(), start.log_std.double()
        zero = torch.zeros_like(self.mean)
        self.shift, self.frame_log_std = zero, zero
        if frame is not None:
            self.shift, self.frame_log_std = frame.mean.double(), frame.log_std.double()
        margin = REACH * torch.exp(self.log_std)
        self.range = (self.mean - margin, self.mean + margin)
        self.u = self.mean  # a first guess; where the search starts does not change where it ends

    def __call__(self, z: Tensor) -> Gaussian:
        """Shapes: float64 (N, latents, h, w) -> twice alike.

        Raises: StageError if earlier coordinates of u depend on later ones.
        """
        after_flow = (z - self.shift) * torch.exp(-self.frame_log_std)
        shift, log_scale = self._parameters_at_inverse(after_flow)
        mean = self.shift + torch.exp(self.frame_log_std - log_scale) * (self.mean - shift)
        return mean, self.log_std + self.frame_log_std - log_scale

    def _parameters_at_inverse(self, after_flow: Tensor) -> Gaussian:
        """m and s of the flow at the u that it maps to `after_flow`.

        Jacobi iteration: coordinate i is right, to the last bit, after at most i + 1 passes, so that a u that no longer
        changes is the only one. Source: Song et al. (2021), arXiv 2002.03629.
        """
        for _ in range(after_flow[0].numel() + 2):
            shift, log_scale = (
                part.double() for part in self.flow.shift_and_log_scale(self.u.to(self.dtype), self.context)
            )
            u = (after_flow * torch.exp(log_scale) + shift).clamp(*self.range)
            if torch.equal(u, self.u):
                return shift, log_scale
            self.u = u
        raise StageError("the flow of a posterior has no inverse on this machine: its masks do not hold")
