"""Residual variational autoencoder whose posteriors pass an inverse autoregressive flow.

Source: Kingma et al. (2016), arXiv 1606.04934, section 5.2 and appendix C, and the authors' code for CIFAR-10: one
5 x 5 convolution of stride 2, 20 layers of 160 maps and 32 latent maps on the 16 x 16 grid, free bits per map.
Differs: no weight normalisation; the likelihood's first and last level take the tails, so that it sums to one.
With has_linear_start, z is standardised by the exact posterior of probabilistic PCA of patches: the layers take its
components in order of variance, the largest on top, and training starts at the bound of that PCA.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dgm.config.parse import Config
from dgm.distributions.diagonal_gaussian import DiagonalGaussian, standard_noise
from dgm.distributions.discretized_logistic import (
    LOG_SCALE_OF_UNIT_VARIANCE,
    LOG_SCALE_RANGE,
    discretized_logistic_log_prob,
    sample_discretized_logistic,
    unit_from_levels,
)
from dgm.distributions.precision import sum_per_image
from dgm.model_api.contracts import GradientTrained, LatentVariableModel, Objective
from dgm.models.vae_iaf.bidirectional_layer import BidirectionalLayer, Evidence
from dgm.models.vae_iaf.ladder_steps import LadderSteps
from dgm.nets.layer_list import LayerList
from dgm.nets.patch_pca import PatchPCA
from dgm.nets.zero_layers import zero_layer
from dgm.types import Images, ImageSpec

NOISE_STD = 0.15  # of the likelihood before training, where there is no linear start


class VAEIAFConfig(Config):
    """num_latents: maps of each layer, on the grid of stride stem_stride. num_hidden_layers: of each flow's network.

    free_nats_per_map: the KL of a map, averaged over the batch, costs at least this much in training.
    has_subpixel_scale: log-scales of the likelihood come from the decoder instead of one per channel.
    """

    num_layers: int = Field(ge=1)
    num_features: int = Field(ge=1)
    num_latents: int = Field(ge=1)
    stem_stride: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1)
    free_nats_per_map: float = Field(ge=0)
    has_subpixel_scale: bool
    has_linear_start: bool
    num_start_images: int = Field(ge=1)


class VAEIAF(GradientTrained[VAEIAFConfig], LatentVariableModel[VAEIAFConfig]):
    """p(z) = prod_l p(z_l | z above), q(z | x) = prod_l q(z_l | z above, x), P(x | z) discretized logistics."""

    config_type = VAEIAFConfig
    hot_method = "draw"

    def __init__(self, spec: ImageSpec, config: VAEIAFConfig) -> None:
        super().__init__(spec, config)
        stride, features = config.stem_stride, config.num_features
        if spec.height % stride or spec.width % stride:
            raise ValueError(f"stem_stride {stride} does not divide {spec.height} x {spec.width}")
        self.stem = nn.Conv2d(spec.channels, features, 2 * stride + 1, stride, padding=stride)
        self.layers = LayerList(  # from the top down
            BidirectionalLayer(features, config.num_latents, config.num_hidden_layers, is_top=index == 0)
            for index in range(config.num_layers)
        )
        self.top = nn.Parameter(torch.zeros(1, features, 1, 1))
        num_outputs = spec.channels * (2 if config.has_subpixel_scale else 1)
        self.head = nn.ConvTranspose2d(
            features, num_outputs, 2 * stride + 1, stride, padding=stride, output_padding=stride - 1
        )
        self.log_scale = nn.Parameter(torch.full((spec.channels, 1, 1), LOG_SCALE_OF_UNIT_VARIANCE))
        self.linear: PatchPCA | None = None
        if config.has_linear_start:
            self.linear = PatchPCA(spec, stride, config.num_latents * config.num_layers)
            zero_layer(self.head)

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        if self.linear is not None:
            picked = torch.randperm(len(images), generator=generator, device=generator.device)
            self.linear.fit(images[picked[: self.config.num_start_images].to(images.device)])

    def noise(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Standard normal draws for all latents, from the top down. Shapes: -> (layers, N, latents, h, w)."""
        config = self.config
        grid = (self.spec.height // config.stem_stride, self.spec.width // config.stem_stride)
        return standard_noise((config.num_layers, num_images, config.num_latents, *grid), generator, self.top)

    def draw(self, images: Images, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        """log P(x | z) (N,), and log q - log p of each map of each layer from the top down, (N, latents); in nats.

        Shapes: noise as `noise` draws it.
        """
        x = unit_from_levels(images, self.spec.levels, self.top.dtype)
        frames = self._frames(x)
        h = self.stem(2 * x)
        evidence: list[Evidence] = []
        for layer in reversed(self.layers):
            h, found = layer.up(h)
            evidence.append(found)
        h = self.top.expand_as(h)
        latents: list[Tensor] = []
        kl_maps: list[Tensor] = []
        for layer, frame, unit in zip(self.layers, frames, noise.unbind(), strict=True):
            h, z, kl = self._posterior_layer(layer, h, evidence.pop(), frame, unit)
            latents.append(z)
            kl_maps.append(kl)
        log_prob = discretized_logistic_log_prob(images, *self.decode(h, latents), self.spec.levels)
        return sum_per_image(log_prob), kl_maps

    def _frames(self, x: Tensor) -> list[DiagonalGaussian | None]:
        """The linear posterior of each layer's latents, from the top down; None where there is no linear start."""
        if self.linear is None:
            return [None] * self.config.num_layers
        return [*self.linear.posterior_shares(x, self.config.num_layers)]

    def _posterior_layer(
        self,
        layer: BidirectionalLayer,
        h: Tensor,
        up: Evidence,
        frame: DiagonalGaussian | None,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features for the layer below, latents, and log q - log p of each map (N, latents) in nats."""
        prior, down, deterministic = layer.read(h)
        z, log_q = layer.posterior_draw(up, down, noise)
        if frame is not None:
            z, log_q = frame.mean + frame.log_std.exp() * z, log_q - frame.log_std
        log_ratio = (log_q - prior.log_density(z)).flatten(2).double().sum(dim=2)
        return layer.write(h, z, deterministic), z, log_ratio

    def decode(self, h: Tensor, latents: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and log-scale of each sub-pixel's logistic. Shapes: (N, features, h, w) -> (N, C, H, W) and alike."""
        outputs = self.head(F.elu(h)).to(self.top.dtype)
        mean, widening = outputs[:, : self.spec.channels], outputs[:, self.spec.channels :]
        noise_std = torch.as_tensor(NOISE_STD).to(mean)
        if self.linear is not None:
            noise_std = self.linear.noise_variance.sqrt()
            mean = self.linear.reconstruct(torch.cat(latents, dim=1)) + noise_std * mean
        log_scale = self.log_scale + noise_std.log()
        if self.config.has_subpixel_scale:
            log_scale = log_scale + widening
        return mean, log_scale.clamp(*LOG_SCALE_RANGE).expand_as(mean)

    def bound_terms(self, images: Images, generator: torch.Generator) -> Mapping[str, Tensor]:
        reconstruction, kl_maps = self.draw(images, self.noise(len(images), generator))
        return {
            "reconstruction": reconstruction,
            **{f"kl_layer_{number:02d}": -maps.sum(dim=1) for number, maps in enumerate(kl_maps, start=1)},
        }

    def objective(self, images: Images, generator: torch.Generator, progress: float) -> Objective:
        reconstruction, kl_maps = self.draw(images, self.noise(len(images), generator))
        maps = torch.cat(kl_maps, dim=1)
        charged = maps.mean(dim=0).clamp(min=self.config.free_nats_per_map).sum()
        return Objective(loss=charged - reconstruction, nats=(reconstruction - maps.sum(dim=1)).detach())

    def log_weights(self, images: Images, generator: torch.Generator) -> Tensor:
        reconstruction, kl_maps = self.draw(images, self.noise(len(images), generator))
        return reconstruction - torch.cat(kl_maps, dim=1).sum(dim=1)

    def latent_steps(self, num_images: int, images: Images | None = None) -> LadderSteps:
        if images is None:
            return LadderSteps(self, num_images, (), ())
        x = unit_from_levels(images, self.spec.levels, self.top.dtype)
        h, evidence = self.stem(2 * x), list[Evidence]()
        for layer in reversed(self.layers):
            h, found = layer.up(h)
            evidence.insert(0, found)
        return LadderSteps(self, num_images, evidence, self._frames(x))

    @torch.no_grad()
    def sample(self, num_images: int, generator: torch.Generator, temperature: float = 1.0) -> Images:
        stride = self.config.stem_stride
        h = self.top.expand(num_images, -1, self.spec.height // stride, self.spec.width // stride)
        latents: list[Tensor] = []
        for layer in self.layers:
            prior, _, deterministic = layer.read(h)
            latents.append(prior.sample(generator, temperature))
            h = layer.write(h, latents[-1], deterministic)
        mean, log_scale = self.decode(h, latents)
        levels = sample_discretized_logistic(mean, log_scale, self.spec.levels, generator, temperature)
        return levels.to(torch.uint8)

    def num_parameters(self) -> int:
        """Those of the networks and, if there are any, of the principal components."""
        return super().num_parameters() + (0 if self.linear is None else self.linear.num_parameters())
