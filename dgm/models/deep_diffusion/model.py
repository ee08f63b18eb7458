"""Deep diffusion: images turn into noise in T small fixed Gaussian steps, and a network learns the way back.

Forward q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I); model p(x_T) = N(0, I) and, for t = T ... 2,
p(x_{t-1} | x_t) = N(mu, sigma^2) with f = (f_mu, f_sigma) the network's output at x_t, read at time t:

    mu = sqrt(1 - beta_t) x_t + sqrt(beta_t) f_mu,   sigma^2 = sigmoid(f_sigma / sqrt(T) + logit beta_t).

The first step is fixed, p(x_0 | x_1) = N(sqrt(1 - beta_1) x_1, beta_1 I). By Jensen's inequality, q(x_1 ... x_T | x_0)
taken backwards in time by Bayes' rule, q(x_1 | x_0) q(x_2 | x_1, x_0) ... = q(x_T | x_0) prod_t q(x_{t-1} | x_t, x_0):

    log p(x_0) >= E_q log [p(x_0 ... x_T) / q(x_1 ... x_T | x_0)]
                = E_q log p(x_0 | x_1)                                       first_step
                  - sum_{t=2}^T E_q KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))       kl_noise_...
                  - KL(q(x_T | x_0) || p(x_T)).                              prior

Every KL is one of two diagonal Gaussians. E_q log p(x_0 | x_1) = -(D log(2 pi beta_1) + beta_1 |x_0|^2
+ (1 - beta_1) D) / 2, which is why a large beta_1 is a floor: with all KLs zero, log2(scale) + log2(2 pi e
beta_1) / 2 bits per sub-pixel. x_0 is an image plus noise uniform over one grey level, minus a mean, over one scalar
scale, which gives unit variance; -D log(scale) makes the density one over grey levels (in first_step). A bound twice
over, then: on the density, and by the density on P(image) (dgm.dequantization).

The sum over t. f = 0 leaves a Gaussian start whose KLs, averaged over the noise e, are a known quadratic in x_0
(gaussian_reverse.py). So the network is run at a few random steps only, weighed by one over their probability,
and what is estimated is the difference that f makes: KL(f) - KL(0) at the same e. Unbiased, and exact at f = 0.

Source: Sohl-Dickstein, Weiss, Maheswaranathan & Ganguli (2015), arXiv 1503.03585, equations 13-14, section 2.4 and
appendices B and D; schedule, sigma and bumps as in the authors' code.
Differs: noise exactly one grey level wide (their code has it narrower); AdamW or Muon instead of RMSProp; one step per
image, not one per minibatch, drawn in proportion to the log-SNR it loses. With has_linear_start, which is not in the
paper, f corrects the exact reverse trajectory of the Gaussian with the training images' mean and covariance, whose
gain and variance stand for sqrt(1 - beta_t) and beta_t above. Covariances are then diagonal in its principal axes,
not in the pixels; f_sigma is averaged over the image. The network sees x_t whitened and the Gaussian's estimate of e,
and f_mu is a map plus these two times maps of gains: the right filter where an image is flatter than the average one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from dgm.dequantization import dequantize, quantize
from dgm.distributions.diagonal_gaussian import standard_noise
from dgm.distributions.gaussian import LOG_TWO_PI
from dgm.distributions.precision import sum_per_image
from dgm.model_api.contracts import BoundModel, GradientTrained, Objective
from dgm.models.deep_diffusion.gaussian_reverse import BAND_NAMES, GaussianReverse
from dgm.models.deep_diffusion.network import ReverseNetwork, ReverseNetworkConfig, temporal_bumps
from dgm.models.deep_diffusion.trajectory import ForwardTrajectory, Schedule
from dgm.types import Images, ImageSpec


class DeepDiffusionConfig(ReverseNetworkConfig):
    """num_steps: T. schedule: see trajectory.py. first_variance: beta_1, in units of the data's variance;
    published: 1 / T + 0.001. has_linear_start: see above. num_start_images: how many training images, the first ones,
    its moments are taken over; null for all. has_mirrored_start: over their mirror images too.
    num_evaluation_steps: random steps per image in an evaluation; 0 for all.
    """

    num_steps: int = Field(ge=2)
    schedule: Schedule
    first_variance: float = Field(gt=0, lt=0.5)
    has_linear_start: bool
    num_start_images: int | None = Field(ge=1)
    has_mirrored_start: bool
    num_evaluation_steps: int = Field(ge=0)


class DeepDiffusion(GradientTrained[DeepDiffusionConfig], BoundModel[DeepDiffusionConfig]):
    """T - 1 learned Gaussian steps back from noise. y, f_mu, f_sigma (N, D): along the start's directions."""

    config_type = DeepDiffusionConfig
    hot_method = "excess_kl"

    def __init__(self, spec: ImageSpec, config: DeepDiffusionConfig) -> None:
        super().__init__(spec, config)
        self.trajectory = ForwardTrajectory(config.num_steps, config.schedule, config.first_variance)
        self.start = GaussianReverse(spec, self.trajectory, config.has_linear_start)
        num_inputs, num_outputs = (2, 4) if config.has_linear_start else (1, 2)
        self.network = ReverseNetwork(spec, num_inputs * spec.channels, num_outputs * spec.channels, config)
        bumps = temporal_bumps(config.num_steps, config.num_bumps)
        self.bumps = nn.Buffer(torch.cat([bumps[:1], bumps]), persistent=False)  # indexed by t = 0 ... T

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        self.start.fit(images[: self.config.num_start_images], self.config.has_mirrored_start)

    def read_network(self, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """f_mu and f_sigma at y_t. Shapes: (N, D), (N,) -> twice (N, D) float64."""
        if not self.config.has_linear_start:
            f_mu, f_sigma = self.network(self.start.to_pixels(y), self.bumps[t]).to(y.dtype).chunk(2, dim=1)
            return self.start.to_directions(f_mu).double(), self.start.spread(f_sigma).double()
        seen = torch.cat([self.start.whiten(y, t), self.start.noise_estimate(y, t)])
        x = torch.cat(self.start.to_pixels(seen).chunk(2), dim=1)
        outputs = self.network(x, self.bumps[t]).to(y.dtype)
        shift, f_sigma, gains = outputs.split([self.spec.channels] * 2 + [2 * self.spec.channels], dim=1)
        f_mu = shift + (gains * x).unflatten(1, (2, -1)).sum(dim=1)
        return self.start.to_directions(f_mu).double(), self.start.spread(f_sigma).double()

    def log_variance(self, f_sigma: Tensor, start: Tensor) -> Tensor:
        """log sigma^2 where `start` is the variance at f_sigma = 0. Shapes: (N, D), (N, D) -> (N, D)."""
        return logsigmoid(f_sigma / math.sqrt(self.config.num_steps) + torch.logit(start))

    def excess_kl(self, y_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """KL(f) - KL(0) of step t, in nats, at y_t = sqrt(A_t) y_0 + sqrt(1 - A_t) noise.

        Shapes: (N, D), (N, D), (N,) -> (N,) float64.
        """
        signal, share = (
            table[t, None].sqrt().to(y_0.dtype) for table in (self.trajectory.signal, self.trajectory.noise)
        )
        f_mu, f_sigma = self.read_network(signal * y_0 + share * noise, t)
        offset, (_, variance) = self.start.offset(y_0, noise, t), self.start.step(t)
        posterior, log_variance = self.start.posterior_variance(t), self.log_variance(f_sigma, variance)
        off = offset - self.trajectory.beta[t, None].sqrt() * f_mu
        excess = (posterior + off**2) * torch.exp(-log_variance) - (posterior + offset**2) / variance
        return 0.5 * sum_per_image(excess + log_variance - variance.log())

    def fixed_terms(self, y_0: Tensor) -> dict[str, Tensor]:
        """The terms that the network has no part in. Shapes: (N, D) -> each (N,) float64, in nats."""
        square, dim, table = y_0.double().square().sum(dim=1), y_0.shape[1], self.trajectory
        beta, signal, noise = table.beta[1], table.signal[-1], table.noise[-1]
        first_step = -0.5 * (dim * (LOG_TWO_PI + beta.log() + 1 - beta) + beta * square) - dim * self.start.scale.log()
        return {"prior": -0.5 * (signal * square - dim * (signal + noise.log())), "first_step": first_step}

    def terms(self, images: Images, generator: torch.Generator, num_draws: int) -> dict[str, Tensor]:
        """The parts of the bound, from `num_draws` random steps per image, or from all steps if 0."""
        y_0 = self.start.standardize(dequantize(images, generator, self.network.head.weight.dtype))
        if num_draws:
            steps, weights = self.trajectory.draw_steps(len(images), num_draws, generator)
        else:
            steps = torch.arange(2, self.config.num_steps + 1)[:, None].expand(-1, len(images))
            weights = torch.ones(steps.shape, dtype=torch.float64)
        kl = self.start.expected_kl(y_0)
        for t, weight in zip(steps.to(y_0.device), weights.to(y_0.device), strict=True):
            excess = weight * self.excess_kl(y_0, standard_noise(tuple(y_0.shape), generator, y_0), t)
            kl = kl.scatter_add(1, self.start.band[t, None], excess[:, None])
        return self.fixed_terms(y_0) | dict(zip(BAND_NAMES, -kl.T, strict=True))

    def bound_terms(self, images: Images, generator: torch.Generator) -> Mapping[str, Tensor]:
        return self.terms(images, generator, self.config.num_evaluation_steps)

    def objective(self, images: Images, generator: torch.Generator, progress: float) -> Objective:
        nats = torch.stack(list(self.terms(images, generator, num_draws=1).values())).sum(dim=0)
        return Objective(loss=-nats, nats=nats.detach())

    @torch.no_grad()
    def sample(self, num_images: int, generator: torch.Generator, temperature: float = 1.0) -> Images:
        shape, like = (num_images, self.spec.num_subpixels), self.network.head.weight
        y = temperature * standard_noise(shape, generator, like)
        for step in range(self.config.num_steps, 1, -1):
            t = torch.full((num_images,), step, device=self.device)
            (f_mu, f_sigma), (gain, variance) = self.read_network(y, t), self.start.step(t)
            std = torch.exp(0.5 * self.log_variance(f_sigma, variance))
            mean = gain * y + self.trajectory.beta[step].sqrt() * f_mu
            y = (mean + temperature * std * standard_noise(shape, generator, mean)).to(like.dtype)
        beta = self.trajectory.beta[1]
        y = (1 - beta).sqrt() * y + temperature * beta.sqrt() * standard_noise(shape, generator, y)
        return quantize(self.start.restore(y.to(like.dtype)), self.spec)

    def num_parameters(self) -> int:
        """Those of the network, and of the Gaussian that it starts from: moments, or one mean and one scale."""
        dim = self.spec.num_subpixels
        return super().num_parameters() + (dim + dim * (dim + 1) // 2 if self.config.has_linear_start else 2)
