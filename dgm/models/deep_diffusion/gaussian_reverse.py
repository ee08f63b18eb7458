"""The reverse trajectory of a Gaussian, in closed form: what a diffusion model is before its network has learned.

Data N(0, U diag(l) U^T) diffuse to N(0, U diag(v_t) U^T) with v_t = A_t l + 1 - A_t. Along each direction, a column
of U, with y = U^T x (Bayes' rule for two Gaussians):

    p(y_{t-1} | y_t) = N(sqrt(1 - beta_t) v_{t-1} / v_t  y_t,  beta_t v_{t-1} / v_t).

With U = I and l = 1 this is N(sqrt(1 - beta_t) y_t, beta_t), the process run backwards with nothing learned.
Given the image, q(y_{t-1} | y_t, y_0) has variance w_t = beta_t (1 - A_{t-1}) / (1 - A_t), and with
y_t = sqrt(A_t) y_0 + sqrt(1 - A_t) e its mean is off the one above by

    d_t = beta_t sqrt(A_{t-1}) / v_t  (y_0 - sqrt(A_t / (1 - A_t)) l e),

so that KL(q || p) = (log(s / w_t) + (w_t + d_t^2) / s - 1) / 2 with s = beta_t v_{t-1} / v_t; its mean over e is
quadratic in y_0, and so is its sum over any set of steps.
Source: Sohl-Dickstein et al. (2015), arXiv 1503.03585, equations 13 and 14; the closed form is derived above.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgm.distributions.gaussian import DEQUANTIZATION_VARIANCE, image_moments, principal_axes
from dgm.models.deep_diffusion.trajectory import ForwardTrajectory
from dgm.types import Images, ImageSpec

CHUNK_SIZE = 1024  # images counted at a time
# Bands of steps, by the noise's standard deviation over the signal's, sqrt((1 - A_t) / A_t), in units of the data's.
BAND_EDGES = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0)
BAND_NAMES = (
    "kl_noise_below_1_64",
    "kl_noise_1_64_to_1_16",
    "kl_noise_1_16_to_1_4",
    "kl_noise_1_4_to_1",
    "kl_noise_1_to_4",
    "kl_noise_above_4",
)


class GaussianReverse(nn.Module):
    """Standardisation of images, directions U (None: the pixels), variances l, and the sums of the KL terms."""

    def __init__(self, spec: ImageSpec, trajectory: ForwardTrajectory, has_directions: bool) -> None:
        super().__init__()
        self.spec = spec
        self.trajectory = trajectory
        dim, double = spec.num_subpixels, torch.float64
        self.mean = nn.Buffer(torch.full(spec.shape, spec.levels / 2, dtype=double))
        self.scale = nn.Buffer(torch.full((), spec.levels / 4, dtype=double))
        self.variances = nn.Buffer(torch.ones(dim, dtype=double))
        self.directions = nn.Buffer(torch.eye(dim)) if has_directions else None
        ratio = (trajectory.noise / trajectory.signal).sqrt()
        band = torch.searchsorted(torch.tensor(BAND_EDGES, dtype=double), ratio, right=True)
        self.band = nn.Buffer(band, persistent=False)
        self.band_weights = nn.Buffer(torch.zeros(len(BAND_NAMES), dim, dtype=double))
        self.band_constants = nn.Buffer(torch.zeros(len(BAND_NAMES), dtype=double))
        self._sum_bands()

    @torch.no_grad()
    def fit(self, images: Images, is_mirrored: bool) -> None:
        """Moments of dequantized uint8 images: all of them if there are directions, else one mean and one scale.

        is_mirrored: of their mirror images too; one mean and one scale are the same for both.
        """
        if self.directions is None:
            counts = torch.zeros(self.spec.levels, dtype=torch.float64, device=images.device)
            for chunk in images.split(CHUNK_SIZE):
                counts += torch.bincount(chunk.flatten(), minlength=self.spec.levels)
            levels = torch.arange(self.spec.levels, device=images.device, dtype=torch.float64) + 0.5
            mean = (counts * levels).sum() / counts.sum()
            self.mean.fill_(float(mean))
            self.scale.copy_(((counts * (levels - mean) ** 2).sum() / counts.sum() + DEQUANTIZATION_VARIANCE).sqrt())
        else:
            mean, covariance = image_moments(images, is_mirrored=is_mirrored)
            variances, directions = principal_axes(covariance, "the covariance of the training images")
            self.mean.copy_(mean.view(self.spec.shape))
            # one scalar of unit variance about one mean, as without directions; the mean image is a refinement
            self.scale.copy_((variances.mean() + mean.var(correction=0)).sqrt())
            self.variances.copy_(variances / self.scale**2)
            self.directions.copy_(directions)
        self._sum_bands()

    def standardize(self, x: Tensor) -> Tensor:
        """Coefficients y_0 of dequantized images. Shapes: (N, C, H, W) in grey levels -> (N, D)."""
        return self.to_directions(((x.double() - self.mean) / self.scale).to(x.dtype))

    def restore(self, y: Tensor) -> Tensor:
        """The inverse of `standardize`. Shapes: (N, D) -> (N, C, H, W) float64 in grey levels."""
        return self.to_pixels(y).double() * self.scale + self.mean

    def to_directions(self, x: Tensor) -> Tensor:
        """U^T x. Shapes: (N, C, H, W) -> (N, D)."""
        if self.directions is None:
            return x.flatten(1)
        with torch.autocast(x.device.type, enabled=False):  # three digits would be coarser than the first steps' noise
            return x.flatten(1) @ self.directions.to(x.dtype)

    def to_pixels(self, y: Tensor) -> Tensor:
        """U y. Shapes: (N, D) -> (N, C, H, W)."""
        if self.directions is None:
            return y.view(-1, *self.spec.shape)
        with torch.autocast(y.device.type, enabled=False):
            return (y @ self.directions.to(y.dtype).T).view(-1, *self.spec.shape)

    def spread(self, x: Tensor) -> Tensor:
        """A map's value for each direction: that of the pixel, or the mean of the map. Shapes: as to_directions."""
        flat = x.flatten(1)
        return flat if self.directions is None else flat.mean(dim=1, keepdim=True).expand_as(flat)

    def diffused(self, t: Tensor) -> Tensor:
        """v_t. Shapes: (N,) -> (N, D) float64."""
        return self.trajectory.signal[t, None] * self.variances + self.trajectory.noise[t, None]

    def step(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """What p(y_{t-1} | y_t) multiplies y_t by for its mean, and its variance s. Shapes: (N,) -> twice (N, D)."""
        ratio, beta = self.diffused(t - 1) / self.diffused(t), self.trajectory.beta[t, None]
        return (1 - beta).sqrt() * ratio, beta * ratio

    def noise_estimate(self, y: Tensor, t: Tensor) -> Tensor:
        """The Gaussian's expectation of e given y_t. Shapes: (N, D), (N,) -> (N, D)."""
        return y * (self.trajectory.noise[t, None].sqrt() / self.diffused(t)).to(y.dtype)

    def whiten(self, y: Tensor, t: Tensor) -> Tensor:
        """y_t with unit variance along every direction. Shapes: (N, D), (N,) -> (N, D)."""
        return y * self.diffused(t).rsqrt().to(y.dtype)

    def posterior_variance(self, t: Tensor) -> Tensor:
        """w_t. Shapes: (N,) -> (N, 1) float64."""
        return (self.trajectory.beta[t] * self.trajectory.noise[t - 1] / self.trajectory.noise[t])[:, None]

    def offset(self, y_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """d_t. Shapes: (N, D), (N, D), (N,) -> (N, D) float64."""
        table = self.trajectory
        snr = (table.signal[t, None] / table.noise[t, None]).sqrt()
        factor = table.beta[t, None] * table.signal[t - 1, None].sqrt() / self.diffused(t)
        return factor * (y_0.double() - snr * self.variances * noise.double())

    def expected_kl(self, y_0: Tensor) -> Tensor:
        """Sum of this trajectory's KL terms over each band, in nats. Shapes: (N, D) -> (N, bands) float64."""
        return y_0.double().square() @ self.band_weights.T + self.band_constants

    @torch.no_grad()
    def _sum_bands(self) -> None:
        """The KL terms' means over e, as weights of y_0^2 and constants, summed over the steps of each band."""
        table, (weights, constants) = self.trajectory, (self.band_weights.zero_(), self.band_constants.zero_())
        for t in torch.arange(2, table.num_steps + 1, device=weights.device).split(100):
            _, s = self.step(t)
            w = self.posterior_variance(t)
            square = table.beta[t, None] ** 2 * table.signal[t - 1, None] / self.diffused(t) ** 2 / s
            spread = (table.signal[t, None] / table.noise[t, None]) * self.variances**2
            rest = (s / w).log() + w / s - 1 + square * spread
            weights.index_add_(0, self.band[t], 0.5 * square)
            constants.index_add_(0, self.band[t], 0.5 * rest.sum(dim=1))
