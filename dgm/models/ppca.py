"""Probabilistic principal component analysis: a Gaussian with a low-rank covariance plus equal noise in all directions.

x = loadings z + mean + noise, z ~ N(0, I_q), noise ~ N(0, noise_variance I).
Source: Tipping & Bishop (1999), "Probabilistic principal component analysis", equations 7-8 (closed
form) and 27-30 (EM).
Differs: fitted on the moments of dequantized images, in expectation over the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.distributions.diagonal_gaussian import standard_noise
from dgm.distributions.gaussian import LOG_TWO_PI, cholesky, image_moments, principal_axes
from dgm.model_api.contracts import DensityModel, Fitted
from dgm.seeds import Stream, generator_for
from dgm.types import Images, ImageSpec


class PPCAConfig(Config):
    """num_components: q, at most D - 1. method: closed_form (0 iterations) or em.
    num_fit_images: how many training images, the first ones, the moments are taken over; null for all."""

    num_components: int = Field(ge=1)
    method: Literal["closed_form", "em"]
    num_fit_images: int | None = Field(ge=1)


class PPCA(Fitted[PPCAConfig], DensityModel[PPCAConfig]):
    """p(x) = N(x; mean, loadings loadings^T + noise_variance I) over grey levels."""

    config_type = PPCAConfig

    def __init__(self, spec: ImageSpec, config: PPCAConfig) -> None:
        super().__init__(spec, config)
        if config.num_components >= spec.num_subpixels:
            raise ValueError(
                f"num_components: {config.num_components} must be below {spec.num_subpixels}, the dimension"
            )
        dim, num_components = spec.num_subpixels, config.num_components
        self.mean = nn.Buffer(torch.full((dim,), spec.levels / 2, dtype=torch.float64))
        self.loadings = nn.Buffer(torch.zeros(dim, num_components, dtype=torch.float64))
        self.noise_variance = nn.Buffer(torch.ones((), dtype=torch.float64))
        self._covariance: Tensor | None = None  # of the images, kept between iterations; recomputed after a resume

    def images_used(self, images: Images, iteration: int | None = None) -> Images:
        return images[: self.config.num_fit_images]

    def start(self, images: Images, generator: torch.Generator) -> None:
        self.start_from_moments(*image_moments(self.images_used(images)), generator)

    def start_from_moments(self, mean: Tensor, covariance: Tensor, generator: torch.Generator) -> None:
        """What `start` does, from the moments of its images: float64 (D,), (D, D). EM keeps the covariance."""
        self.mean.copy_(mean)
        if self.config.method == "closed_form":
            eigenvalues, eigenvectors = principal_axes(covariance, "the covariance of the training images")
            q = self.config.num_components
            self.noise_variance.copy_(eigenvalues[q:].mean())
            self.loadings.copy_(eigenvectors[:, :q] * (eigenvalues[:q] - self.noise_variance).clamp(min=0).sqrt())
        else:
            self._start_em(covariance, generator)
            self._covariance = covariance

    def _start_em(self, covariance: Tensor, generator: torch.Generator) -> None:
        """Loadings in the span of covariance @ noise, which holds most of the leading components already.

        From the noise itself EM takes thousands of iterations on images, whose variances span seven decades.
        Source: Halko, Martinsson & Tropp (2011), arXiv 0909.4061, algorithm 4.1.
        """
        noise = standard_noise(tuple(self.loadings.shape), generator, self.loadings, drawn_in=torch.float64)
        basis, _ = torch.linalg.qr(covariance @ noise)
        variances, rotation = torch.linalg.eigh(basis.T @ covariance @ basis)
        dim, q = self.loadings.shape
        rest = (covariance.diagonal().sum() - variances.sum()) / (dim - q)
        self.noise_variance.copy_(rest)
        self.loadings.copy_((basis @ rotation) * (variances - rest).clamp(min=1e-3 * float(rest)).sqrt())

    def iterate(self, images: Images, iteration: int, generator: torch.Generator) -> float:
        if self.config.method == "closed_form":
            return super().iterate(images, iteration, generator)
        if self._covariance is None:
            _, self._covariance = image_moments(self.images_used(images))
        return self._em_step(self._covariance)

    def _em_step(self, covariance: Tensor) -> float:
        W = self.loadings
        nats = self._expected_log_density(covariance)
        SW = covariance @ W
        M = W.T @ W + self.noise_variance * torch.eye(W.shape[1], dtype=W.dtype, device=W.device)
        M_inv_WSW = torch.linalg.solve(M, W.T @ SW)
        identity = torch.eye(W.shape[1], dtype=W.dtype, device=W.device)
        new_W = torch.linalg.solve(self.noise_variance * identity + M_inv_WSW, SW, left=False)
        residual = covariance.diagonal().sum() - (torch.linalg.solve(M, SW.T).T * new_W).sum()
        self.noise_variance.copy_(residual / len(covariance))
        self.loadings.copy_(new_W)
        return nats

    def finish(self, images: Images) -> None:
        self._covariance = None

    def _posterior_factor(self) -> Tensor:
        """Cholesky factor of M = W^T W + noise_variance I, (q, q)."""
        M = self.loadings.T @ self.loadings
        M.diagonal().add_(self.noise_variance)
        return cholesky(M, "the precision of the latent components")

    def _log_determinant(self, factor: Tensor) -> Tensor:
        """Of the model's covariance, by the matrix determinant lemma."""
        dim, q = self.loadings.shape
        return 2 * factor.diagonal().log().sum() + (dim - q) * self.noise_variance.log()

    def _expected_log_density(self, covariance: Tensor) -> float:
        """Mean log-density of data with the model's mean and this covariance, in nats per image."""
        factor = self._posterior_factor()
        half = torch.linalg.solve_triangular(factor, self.loadings.T, upper=False)
        trace = (covariance.diagonal().sum() - ((half @ covariance) * half).sum()) / self.noise_variance
        return float(-0.5 * (len(covariance) * LOG_TWO_PI + self._log_determinant(factor) + trace))

    def log_density(self, x: Tensor) -> Tensor:
        factor = self._posterior_factor()
        centred = x.flatten(1).double() - self.mean
        explained = torch.linalg.solve_triangular(factor, self.loadings.T @ centred.T, upper=False)
        squares = (centred.square().sum(dim=1) - explained.square().sum(dim=0)) / self.noise_variance
        return -0.5 * (centred.shape[1] * LOG_TWO_PI + self._log_determinant(factor) + squares)

    def sample_density(self, num_images: int, generator: torch.Generator, temperature: float) -> Tensor:
        dim, q = self.loadings.shape
        noise = temperature * standard_noise((num_images, q + dim), generator, self.mean, drawn_in=torch.float64)
        x = self.mean + noise[:, :q] @ self.loadings.T + noise[:, q:] * self.noise_variance.sqrt()
        return x.view(num_images, *self.spec.shape)

    def num_parameters(self) -> int:
        return num_ppca_parameters(*self.loadings.shape)


def num_ppca_parameters(dim: int, num_components: int) -> int:
    """Free parameters of PPCA; the loadings are known up to a rotation of the components."""
    return dim + dim * num_components + 1 - num_components * (num_components - 1) // 2


Moments = tuple[Tensor, Tensor]  # mean and covariance of the training images, float64 (D,) and (D, D)


def em_ladder(
    spec: ImageSpec, moments: Moments, x: Tensor, num_components: Sequence[int], num_iterations: int, seed: int
) -> dict[int, Tensor]:
    """log p(x) under PPCA fitted by EM: q -> float64 (N,), for every q in num_components.

    Shapes: x float (N, C, H, W) in grey levels.
    """
    nats: dict[int, Tensor] = {}
    for q in num_components:
        model = PPCA(spec, PPCAConfig(num_components=q, method="em", num_fit_images=None))
        model.start_from_moments(*moments, generator_for(seed, Stream.PREPARATION))
        for _ in range(num_iterations):
            model._em_step(moments[1])  # pyright: ignore[reportPrivateUsage]  # same module
        nats[q] = torch.cat([model.log_density(chunk) for chunk in x.split(2000)])
    return nats


def ladder(moments: Moments, x: Tensor, num_components: Sequence[int], chunk_size: int = 500) -> Tensor:
    """log p(x) under the closed-form PPCA of every q in num_components, from one eigendecomposition.

    Shapes: x float (N, C, H, W) in grey levels -> (N, len(num_components)) float64.
    """
    mean, covariance = moments
    eigenvalues, eigenvectors = principal_axes(covariance, "the covariance of the training images")
    qs = torch.tensor(list(num_components), device=x.device)
    dim = len(mean)
    zero = eigenvalues.new_zeros(1)
    log_variances = torch.cat([zero, eigenvalues.log().cumsum(0)])[qs]
    noise_variances = torch.stack([eigenvalues[q:].mean() for q in num_components])
    log_determinants = log_variances + (dim - qs) * noise_variances.log()
    nats = []
    for chunk in x.flatten(1).split(chunk_size):
        squares = ((chunk.double() - mean) @ eigenvectors).square()
        kept = torch.cat([zero.expand(len(chunk), 1), (squares / eigenvalues).cumsum(1)], dim=1)[:, qs]
        total = torch.cat([zero.expand(len(chunk), 1), squares.cumsum(1)], dim=1)
        rest = (total[:, -1:] - total[:, qs]) / noise_variances
        nats.append(-0.5 * (dim * LOG_TWO_PI + log_determinants + kept + rest))
    return torch.cat(nats)
