"""Mixture of Gaussians by EM, each with its own mean and its own variances along fixed directions.

x = mean + whitening^-1 y, and in y each component is a Gaussian with diagonal covariance. With `pca` the directions are
the principal components, so components differ in their spectrum; with `zca` each direction belongs to one sub-pixel, so
components differ in where an image has contrast; with `opponent` each belongs to one pixel and to its brightness or one
of its colour contrasts. One component is the full Gaussian.
Source: Dempster, Laird & Rubin (1977), "Maximum likelihood from incomplete data via the EM algorithm", section 4.3.
Differs: maximum a posteriori with conjugate pseudo-counts; dequantization noise enters in expectation (Jensen), so
that the fit is free of noise; a component that has lost its images is split off the heaviest one, with a warning: the
likelihood may fall in that iteration. Covariances are diagonal in one basis that all components share.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dgm.config.parse import Config
from dgm.distributions.diagonal_gaussian import standard_noise
from dgm.distributions.gaussian import (
    DEQUANTIZATION_VARIANCE,
    LOG_TWO_PI,
    NotPositiveDefiniteError,
    image_moments,
    principal_axes,
)
from dgm.distributions.gaussian_mixture import posterior
from dgm.errors import StageError
from dgm.model_api.contracts import DensityModel, Fitted
from dgm.types import Images, ImageSpec

CHUNK = 1000  # images that are worked on at once


class MixtureOfGaussiansConfig(Config):
    """num_components: K. basis: directions of the diagonal covariances. num_fit_images: the first ones; null for all.
    has_mirrored_whitening: mean and whitening are also those of their mirror images, so that they fit them less closely
    and others better.
    mean_pseudo_counts: images at the global mean, variance_pseudo_counts: images with one variance in all directions,
    added to each component. weight_pseudo_counts: images, added to each component's share.
    min_images: a component with fewer is given half of the heaviest one's, if that has twice as many."""

    num_components: int = Field(ge=1)
    basis: Literal["pca", "zca", "opponent"]
    num_fit_images: int | None = Field(ge=1)
    has_mirrored_whitening: bool
    mean_pseudo_counts: float = Field(ge=0)
    variance_pseudo_counts: float = Field(ge=0)
    weight_pseudo_counts: float = Field(gt=0)
    min_images: float = Field(ge=0)


class MixtureOfGaussians(Fitted[MixtureOfGaussiansConfig], DensityModel[MixtureOfGaussiansConfig]):
    """p(x) = |det whitening| sum over k of weight_k N(whitening (x - mean); means_k, diag(variances_k))."""

    config_type = MixtureOfGaussiansConfig

    def __init__(self, spec: ImageSpec, config: MixtureOfGaussiansConfig) -> None:
        super().__init__(spec, config)
        dim, K = spec.num_subpixels, config.num_components
        self.mean = nn.Buffer(torch.full((dim,), spec.levels / 2, dtype=torch.float64))
        self.whitening = nn.Buffer(torch.eye(dim, dtype=torch.float64))
        self.log_determinant = nn.Buffer(torch.zeros((), dtype=torch.float64))
        self.noise_variances = nn.Buffer(torch.full((dim,), DEQUANTIZATION_VARIANCE, dtype=torch.float64))
        self.log_weights = nn.Buffer(torch.full((K,), -math.log(K), dtype=torch.float64))
        self.means = nn.Buffer(torch.zeros(K, dim, dtype=torch.float64))
        self.variances = nn.Buffer(torch.ones(K, dim, dtype=torch.float64))
        self.scales = nn.Buffer(torch.ones(K, dtype=torch.float64))  # what the pseudo-counts pull variances to
        self._cached_whitened: Tensor | None = None  # float32 (N, D); computed again after a resume

    def images_used(self, images: Images, iteration: int | None = None) -> Images:
        return images[: self.config.num_fit_images]

    @torch.no_grad()
    def start(self, images: Images, generator: torch.Generator) -> None:
        """Components of equal weight, one for each quantile of contrast: what images differ in most."""
        images = self.images_used(images)
        needed = math.ceil(self.config.num_components * max(self.config.min_images, 1.0))
        if len(images) < needed:
            raise StageError(
                f"num_components: {self.config.num_components} of at least {max(self.config.min_images, 1.0):g} images "
                f"(min_images) take {needed} images, there are {len(images)}"
            )
        mean, covariance = image_moments(images, is_mirrored=self.config.has_mirrored_whitening)
        dim = len(mean)
        variances, axes = principal_axes(covariance, "the covariance of the training images")
        whitening = axes.T / variances.sqrt().unsqueeze(1)
        if self.config.basis != "pca":
            whitening = axes @ whitening
        if self.config.basis == "opponent":
            whitening = torch.einsum(
                "bc,cpd->bpd", cosines(self.spec.channels).to(self.device), whitening.view(self.spec.channels, -1, dim)
            ).reshape(dim, dim)
        self.mean.copy_(mean)
        self.whitening.copy_(whitening)
        self.log_determinant.copy_(-0.5 * variances.log().sum())
        self.noise_variances.copy_(DEQUANTIZATION_VARIANCE * whitening.square().sum(dim=1))
        contrast = torch.cat([y.square().sum(dim=1) for y in self._chunks(images)])
        ranks = contrast.argsort(stable=True).argsort(stable=True)
        quantiles = ranks * self.config.num_components // len(images)
        assigned = torch.nn.functional.one_hot(quantiles, self.config.num_components).double()
        self._maximise(*self._moments(images, assigned.split(CHUNK)))

    @torch.no_grad()
    def iterate(self, images: Images, iteration: int, generator: torch.Generator) -> float:
        images = self.images_used(images)
        nats: list[Tensor] = []

        def responsibilities() -> Iterator[Tensor]:
            for y in self._chunks(images):
                joint = self._joint(y) - 0.5 * self.noise_variances @ self.variances.reciprocal().T
                shares, log_density = posterior(joint, dim=1)
                nats.append(log_density.sum())
                yield shares

        moments = self._moments(images, responsibilities())
        self._maximise(*moments)
        return float(torch.stack(nats).sum() / len(images) + self.log_determinant)

    def finish(self, images: Images) -> None:
        self._cached_whitened = None

    def _moments(self, images: Images, responsibilities: Iterator[Tensor] | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Weighted sums over images of 1, y and E[y^2]. Shapes: responsibilities (n, K) -> (K,), (K, D), (K, D)."""
        counts, sums, squares = (torch.zeros_like(t) for t in (self.log_weights, self.means, self.variances))
        for y, weights in zip(self._chunks(images), responsibilities, strict=True):
            counts += weights.sum(dim=0)
            sums += weights.T @ y
            squares += weights.T @ y.square()
        return counts, sums, squares + counts.unsqueeze(1) * self.noise_variances

    def _maximise(self, counts: Tensor, sums: Tensor, squares: Tensor) -> None:
        """Equations of the maximum a posteriori; `scales` are the prior's own parameters and follow last."""
        config = self.config
        n = counts.unsqueeze(1)
        means = sums / (n + config.mean_pseudo_counts).clamp(min=1e-300)
        scatter = squares - (n + config.mean_pseudo_counts) * means.square()
        pulled = scatter + config.variance_pseudo_counts * self.scales.unsqueeze(1)
        variances = pulled / (n + config.variance_pseudo_counts).clamp(min=1e-300)
        counts = counts.clone()
        for dead in (counts < config.min_images).nonzero().flatten().tolist():
            heaviest = int(counts.argmax())
            if counts[heaviest] < 2 * config.min_images:
                break
            warnings.warn(
                f"component {dead} was left with {float(counts[dead]):.3g} images: split off {heaviest}", stacklevel=2
            )
            counts[heaviest] /= 2
            counts[dead] = counts[heaviest]
            means[dead] = means[heaviest]
            variances[dead] = variances[heaviest] * 1.2
        weights = counts + config.weight_pseudo_counts
        if not bool((variances > 0).all()):
            lost = (~(variances > 0)).any(dim=1).nonzero().flatten().tolist()
            raise NotPositiveDefiniteError(
                f"components {', '.join(map(str, lost[:10]))} have no variance in some direction: "
                "raise variance_pseudo_counts or lower num_components"
            )
        self.log_weights.copy_((weights / weights.sum()).log())
        self.means.copy_(means)
        self.variances.copy_(variances)
        self.scales.copy_(1 / variances.reciprocal().mean(dim=1))

    def _joint(self, y: Tensor) -> Tensor:
        """log weight_k + log N(y; means_k, variances_k). Shapes: float64 (N, D) -> (N, K)."""
        precisions = self.variances.reciprocal()
        constants = self.log_weights - 0.5 * (
            self.variances.log().sum(dim=1) + (self.means.square() * precisions).sum(dim=1) + y.shape[1] * LOG_TWO_PI
        )
        return constants + y @ (self.means * precisions).T - 0.5 * y.square() @ precisions.T

    def _whiten(self, x: Tensor) -> Tensor:
        return (x.flatten(1).double() - self.mean) @ self.whitening.T

    def _chunks(self, images: Images) -> Iterator[Tensor]:
        """Whitened centres of the images' cells, float64 (n, D); kept in float32 between calls."""
        if self._cached_whitened is None or len(self._cached_whitened) != len(images):
            whitened = [self._whiten(chunk.double() + 0.5).float() for chunk in images.split(CHUNK)]
            self._cached_whitened = torch.cat(whitened)
        for chunk in self._cached_whitened.split(CHUNK):
            yield chunk.double()

    def log_density(self, x: Tensor) -> Tensor:
        return self._joint(self._whiten(x)).logsumexp(dim=1) + self.log_determinant

    def sample_density(self, num_images: int, generator: torch.Generator, temperature: float) -> Tensor:
        weights = self.log_weights.exp().to(generator.device)
        if temperature == 0:  # the most probable component
            weights = F.one_hot(weights.argmax(), len(weights)).to(weights)
        chosen = torch.multinomial(weights, num_images, replacement=True, generator=generator).to(self.device)
        noise = standard_noise((num_images, len(self.mean)), generator, self.mean, drawn_in=torch.float64)
        y = self.means[chosen] + temperature * self.variances[chosen].sqrt() * noise
        x = torch.linalg.solve(self.whitening, y.T).T + self.mean
        return x.view(num_images, *self.spec.shape)

    def num_parameters(self) -> int:
        dim, K = self.spec.num_subpixels, self.config.num_components
        return dim + dim * (dim + 1) // 2 + K * 2 * dim + K - 1


def cosines(num_channels: int) -> Tensor:
    """Orthonormal cosine transform over channels; of RGB: brightness, red - blue, green - magenta. -> (C, C)."""
    index = torch.arange(num_channels, dtype=torch.float64)
    table = torch.cos(math.pi / num_channels * (index + 0.5) * index.unsqueeze(1))
    return table / table.square().sum(dim=1, keepdim=True).sqrt()
