"""Variational autoencoder with one layer of latents on a grid of places and an amortised Gaussian posterior.

log P(x) >= E_q[log P(x | z)] - KL(q(z | x) || N(0, I)).
Source: Kingma & Welling (2014), arXiv 1312.6114, equations 3, 10 and appendix B; likelihood of a level: a logistic
integrated over its bin (Salimans et al. 2017, arXiv 1701.05517, section 2.1), its scale from the decoder.
Differs: encoder and decoder are the linear autoencoder of principal components of patches plus convolutional
corrections, which are zero at first: training starts at the bound of probabilistic PCA of patches.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.distributions.diagonal_gaussian import DiagonalGaussian, standard_noise
from dgm.distributions.discretized_logistic import (
    LOG_SCALE_OF_UNIT_VARIANCE,
    LOG_SCALE_RANGE,
    discretized_logistic_log_pmf,
    discretized_logistic_log_prob,
    sample_discretized_logistic,
    unit_from_levels,
)
from dgm.distributions.precision import sum_per_image
from dgm.model_api.contracts import GradientTrained, LatentVariableModel, Objective
from dgm.model_api.latent_steps import Gaussian, LatentSteps, Posterior, fixed
from dgm.models.vae.residual_pyramid import DownwardPyramid, UpwardPyramid, total_stride
from dgm.nets.patch_pca import PatchPCA
from dgm.nets.zero_layers import zero_layer
from dgm.types import Images, ImageSpec

POSTERIOR_LOG_STD_RANGE = (-9.0, 2.0)


class VAEConfig(Config):
    """features: of each level from fine to coarse; the first has stride stem_stride, each further one halves the grid.

    num_latents: of each place of the coarsest grid. kl_warmup_fraction: share of the training over which the weight
    of the KL term rises to 1. correction_scale: what an output of 1 of a network moves a mean by, in standard
    deviations of the linear start. num_start_images: how many images the principal components are taken over.
    """

    features: list[int] = Field(min_length=1)
    stem_stride: int = Field(ge=1)
    num_blocks: int = Field(ge=0)
    num_latents: int = Field(ge=1)
    kl_warmup_fraction: float = Field(ge=0, lt=1)
    correction_scale: float = Field(gt=0)
    num_start_images: int = Field(ge=1)


class VAE(GradientTrained[VAEConfig], LatentVariableModel[VAEConfig]):
    """p(z) = N(0, I), P(x | z) independent discretized logistics, q(z | x) diagonal Gaussian."""

    config_type = VAEConfig
    hot_method = "decode"

    def __init__(self, spec: ImageSpec, config: VAEConfig) -> None:
        super().__init__(spec, config)
        features, stride = config.features, config.stem_stride
        self.linear = PatchPCA(spec, total_stride(features, stride), config.num_latents)
        self.encoder = DownwardPyramid(spec.channels, features, stride, config.num_blocks)
        self.head_posterior = nn.Conv2d(features[-1], 2 * config.num_latents, 3, padding=1)
        zero_layer(self.head_posterior)
        self.from_coefficients = nn.Conv2d(config.num_latents, features[-1], 1)
        self.from_latents = nn.Conv2d(config.num_latents, features[-1], 3, padding=1)
        self.decoder = UpwardPyramid(2 * spec.channels, features, stride, config.num_blocks)

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        picked = torch.randperm(len(images), generator=generator, device=generator.device)
        self.linear.fit(images[picked[: self.config.num_start_images].to(images.device)])

    def encode(self, images: Images) -> DiagonalGaussian:
        """q(z | x). Shapes: uint8 (N, C, H, W) -> (N, latents, h, w)."""
        x = unit_from_levels(images, self.spec.levels, self.head_posterior.weight.dtype)
        start = self.linear.posterior(self.linear.coefficients(x))
        h = self.encoder(x) + self.from_coefficients(start.mean)
        shift, widening = self.head_posterior(nn.functional.silu(h)).chunk(2, dim=1)
        mean = start.mean + self.config.correction_scale * start.log_std.exp() * shift
        return DiagonalGaussian.from_network(mean, (start.log_std + widening).clamp(*POSTERIOR_LOG_STD_RANGE))

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-scale of each sub-pixel's logistic. Shapes: (N, latents, h, w) -> twice (N, C, H, W)."""
        shift, widening = self.decoder(self.from_latents(z)).chunk(2, dim=1)
        noise_std = self.linear.noise_variance.sqrt()
        mean = self.linear.reconstruct(z) + self.config.correction_scale * noise_std * shift
        log_scale = (noise_std.log() + LOG_SCALE_OF_UNIT_VARIANCE + widening).clamp(*LOG_SCALE_RANGE)
        return mean, log_scale

    def reconstruction(self, images: Images, z: Tensor) -> Tensor:
        """log P(x | z) in nats. Shapes: (N, C, H, W), (N, latents, h, w) -> (N,) float64."""
        return sum_per_image(discretized_logistic_log_prob(images, *self.decode(z), self.spec.levels))

    def bound_terms(self, images: Images, generator: torch.Generator) -> Mapping[str, Tensor]:
        posterior = self.encode(images)
        z = posterior.sample(generator)
        kl = sum_per_image(posterior.kl(DiagonalGaussian.standard(z)))
        return {"reconstruction": self.reconstruction(images, z), "kl_layer_01": -kl}

    def objective(self, images: Images, generator: torch.Generator, progress: float) -> Objective:
        terms = self.bound_terms(images, generator)
        warmup = self.config.kl_warmup_fraction
        weight = min(1.0, progress / warmup) if warmup > 0 else 1.0
        loss = -terms["reconstruction"] - weight * terms["kl_layer_01"]
        return Objective(loss=loss, nats=(terms["reconstruction"] + terms["kl_layer_01"]).detach())

    def log_weights(self, images: Images, generator: torch.Generator) -> Tensor:
        posterior = self.encode(images)
        z = posterior.sample(generator)
        log_ratio = DiagonalGaussian.standard(z).log_density(z) - posterior.log_density(z)
        return self.reconstruction(images, z) + sum_per_image(log_ratio)

    def latent_steps(self, num_images: int, images: Images | None = None) -> LatentSteps:
        return VAESteps(self, num_images, images)

    @torch.no_grad()
    def sample(self, num_images: int, generator: torch.Generator, temperature: float = 1.0) -> Images:
        stride = self.linear.patch_size
        shape = (num_images, self.config.num_latents, self.spec.height // stride, self.spec.width // stride)
        mean, log_scale = self.decode(temperature * standard_noise(shape, generator, self.head_posterior.weight))
        levels = sample_discretized_logistic(mean, log_scale, self.spec.levels, generator, temperature)
        return levels.to(torch.uint8)

    def num_parameters(self) -> int:
        """Those of the networks and of the principal components."""
        return super().num_parameters() + self.linear.num_parameters()


class VAESteps(LatentSteps):
    """One step: all latents at once."""

    num_steps = 1

    def __init__(self, model: VAE, num_images: int, images: Images | None) -> None:
        self.model = model
        stride, spec = model.linear.patch_size, model.spec
        shape = (num_images, model.config.num_latents, spec.height // stride, spec.width // stride)
        self.z = model.head_posterior.weight.new_zeros(shape)
        self.found: Gaussian | None = None
        if images is not None:
            posterior = model.encode(images)
            self.found = (posterior.mean, posterior.log_std)

    def prior(self) -> Gaussian:
        zero = torch.zeros_like(self.z)
        return zero, zero

    def posterior(self) -> Posterior:
        return fixed(self.found)

    def push(self, z: Tensor) -> None:
        self.z = z.to(self.z)

    def log_pmf(self) -> Tensor:
        return discretized_logistic_log_pmf(*self.model.decode(self.z), self.model.spec.levels)
