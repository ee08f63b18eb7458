"""One Gaussian with a full covariance matrix, fitted in closed form by maximum likelihood on dequantized images.

Source: the "Multivariate Gaussian" row of van den Oord, Kalchbrenner & Kavukcuoglu (2016), arXiv 1601.06759, table 6;
no recipe is published for it. Differs: the expectation over dequantization noise is taken in closed form (I/12).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.distributions.diagonal_gaussian import standard_noise
from dgm.distributions.gaussian import cholesky, gaussian_log_density, image_moments
from dgm.model_api.contracts import DensityModel, Fitted
from dgm.types import Images, ImageSpec


class MultivariateGaussianConfig(Config):
    """num_fit_images: how many training images, the first ones, the moments are taken over; null for all."""

    num_fit_images: int | None = Field(ge=1)


class MultivariateGaussian(Fitted[MultivariateGaussianConfig], DensityModel[MultivariateGaussianConfig]):
    """p(x) = N(x; mean, factor factor^T) over grey levels."""

    config_type = MultivariateGaussianConfig

    def __init__(self, spec: ImageSpec, config: MultivariateGaussianConfig) -> None:
        super().__init__(spec, config)
        self.mean = nn.Buffer(torch.full((spec.num_subpixels,), spec.levels / 2, dtype=torch.float64))
        self.factor = nn.Buffer(torch.eye(spec.num_subpixels, dtype=torch.float64))

    def images_used(self, images: Images, iteration: int | None = None) -> Images:
        return images[: self.config.num_fit_images]

    def start(self, images: Images, generator: torch.Generator) -> None:
        mean, covariance = image_moments(self.images_used(images))
        self.mean.copy_(mean)
        self.factor.copy_(cholesky(covariance, "the covariance of the training images"))

    def log_density(self, x: Tensor) -> Tensor:
        return gaussian_log_density(x.flatten(1), self.mean, self.factor)

    def sample_density(self, num_images: int, generator: torch.Generator, temperature: float) -> Tensor:
        noise = standard_noise((num_images, len(self.mean)), generator, self.mean, drawn_in=torch.float64)
        x = self.mean + temperature * noise @ self.factor.T
        return x.view(num_images, *self.spec.shape)

    def num_parameters(self) -> int:
        dim = self.spec.num_subpixels
        return dim + dim * (dim + 1) // 2
