"""Convolutional DRAW: maps of latents in many steps, each drawn from a prior that knows the steps before.

Source: Gregor et al. (2016), arXiv 1604.08772, section 2: convolutional LSTMs, posterior from the encoder's state,
prior from the decoder's, canvas by sub-pixel convolution; for CIFAR-10, as far as its code and others' agree, 32 steps
of 12 maps of latents on the 16 x 16 grid and 5 x 5 kernels.
Differs: maps that read the image or the canvas are as many as sub-pixels of a place; the likelihood is a logistic
integrated over each level's bin, its tails folded in, so that it sums to one. With has_linear_start, z is standardised
by the exact posterior of probabilistic PCA of patches; the steps take its components in order of variance, the canvas
is the linear reconstruction plus the decoder's output, and training starts at the bound of that PCA.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.distributions.diagonal_gaussian import DiagonalGaussian, standard_noise
from dgm.distributions.discretized_logistic import (
    LOG_SCALE_OF_UNIT_VARIANCE,
    LOG_SCALE_RANGE,
    discretized_logistic_log_pmf,
    discretized_logistic_log_prob,
    unit_from_levels,
)
from dgm.distributions.precision import sum_per_image
from dgm.families.unrolled import UnrolledModel
from dgm.model_api.latent_steps import Gaussian, LatentSteps, Posterior, fixed
from dgm.nets.lstm_cells import ConvLSTMCell, LSTMState
from dgm.nets.patch_pca import PatchPCA
from dgm.nets.zero_layers import bias_of
from dgm.types import Images, ImageSpec

LOG_STD_RANGE = (-8.0, 3.0)  # of priors and posteriors


class ConvDRAWConfig(Config):
    """num_latents: maps of each step, on the grid of this stride. num_read_features: maps that read images.

    kernel_size: of everything on the grid. read_kernel_size: of what reads images.

    correction_scale, num_start_images: of the linear start, what an output of 1 moves a mean by, in its standard
    deviations, and the images that it is taken over; without it the mean colour is taken over as many.
    """

    num_steps: int = Field(ge=1)
    num_hidden: int = Field(ge=1)
    num_latents: int = Field(ge=1)
    num_read_features: int = Field(ge=1)
    stride: int = Field(ge=1)
    kernel_size: int = Field(ge=1)
    read_kernel_size: int = Field(ge=1)
    has_linear_start: bool
    correction_scale: float = Field(gt=0)
    num_start_images: int = Field(ge=2)


class ConvDRAW(UnrolledModel[ConvDRAWConfig]):
    """p(z) = prod_t p(z_t | z before t), q(z | x) = prod_t q(z_t | x, z before t), P(x | z) from the last canvas."""

    config_type = ConvDRAWConfig

    def __init__(self, spec: ImageSpec, config: ConvDRAWConfig) -> None:
        super().__init__(spec, config)
        hidden, latents, stride = config.num_hidden, config.num_latents, config.stride
        read, kernel = config.num_read_features, config.kernel_size
        if spec.height % stride or spec.width % stride:
            raise ValueError(f"stride {stride} does not divide {spec.height} x {spec.width}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel_size {kernel} is even: maps would shrink")
        if config.read_kernel_size < stride:
            raise ValueError(f"read_kernel_size {config.read_kernel_size} is below stride {stride}: pixels go unread")
        self.grid = (spec.height // stride, spec.width // stride)
        margin = (config.read_kernel_size - stride + 1) // 2
        self.read_image, self.read_canvas = (
            nn.Conv2d(2 * spec.channels, read, config.read_kernel_size, stride, padding=margin) for _ in range(2)
        )
        self.encoder = ConvLSTMCell(read + hidden, hidden, kernel)
        self.decoder = ConvLSTMCell(latents + read, hidden, kernel)
        self.head_posterior, self.head_prior = (
            nn.Conv2d(hidden, 2 * latents, kernel, padding=kernel // 2) for _ in range(2)
        )
        self.head_canvas = nn.Conv2d(hidden, 2 * spec.channels * stride**2, kernel, padding=kernel // 2)
        self.first_canvas = nn.Parameter(torch.zeros(2 * spec.channels, 1, 1))
        with torch.no_grad():
            self.first_canvas[spec.channels :] = LOG_SCALE_OF_UNIT_VARIANCE
        for head in (self.head_posterior, self.head_prior, self.head_canvas):
            nn.init.zeros_(bias_of(head))
            if config.has_linear_start or head is not self.head_posterior:
                nn.init.zeros_(head.weight)
        if config.has_linear_start:
            self.linear = PatchPCA(spec, stride, latents * config.num_steps)

    @torch.no_grad()
    def prepare(self, images: Images, generator: torch.Generator) -> None:
        picked = torch.randperm(len(images), generator=generator, device=generator.device)
        images = images[picked[: self.config.num_start_images].to(images.device)]
        if self.linear is not None:
            self.linear.fit(images)
            return
        colours = unit_from_levels(images, self.spec.levels, torch.float64).movedim(1, 0).flatten(1)
        mean, log_scale = self.first_canvas.chunk(2)
        mean.copy_(colours.mean(dim=1)[:, None, None])
        log_scale.add_(colours.std(dim=1).clamp(min=1e-3).log()[:, None, None])

    def _linear_mean(self, latents: list[Tensor]) -> Tensor | float:
        """What the steps so far reconstruct, later ones taken as zero; 0 where there is no linear start."""
        if self.linear is None:
            return 0.0
        absent = (self.config.num_steps - len(latents)) * self.config.num_latents
        z = torch.cat(latents, dim=1) if latents else self.first_canvas.new_zeros(1, 0, *self.grid)
        return self.linear.reconstruct(F.pad(z, (0, 0, 0, 0, 0, absent)))

    def likelihood(self, canvas: Tensor, latents: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and log-scale of each sub-pixel's logistic after some steps. Shapes: (N, 2 C, H, W) -> (N, C, H, W)."""
        mean, log_scale = canvas.chunk(2, dim=1)
        if self.linear is not None:
            noise_std = self.linear.noise_variance.sqrt()
            mean = self._linear_mean(latents) + self.config.correction_scale * noise_std * mean
            log_scale = log_scale + noise_std.log()
        return mean, log_scale.clamp(*LOG_SCALE_RANGE)

    def prior(self, decoder: LSTMState) -> DiagonalGaussian:
        """p(z_t | z before t). Shapes: -> (N, latents, h, w)."""
        mean, log_std = self.head_prior(decoder[0]).chunk(2, dim=1)
        return DiagonalGaussian.from_network(mean, log_std.clamp(*LOG_STD_RANGE))

    def posterior(self, encoder: LSTMState, frame: DiagonalGaussian | None) -> DiagonalGaussian:
        """q(z_t | x, z before t), relative to `frame` if there is one. Shapes: -> (N, latents, h, w)."""
        mean, log_std = self.head_posterior(encoder[0]).chunk(2, dim=1)
        found = DiagonalGaussian.from_network(mean, log_std.clamp(*LOG_STD_RANGE))
        if frame is None:
            return found
        mean = frame.mean + self.config.correction_scale * frame.log_std.exp() * found.mean
        return DiagonalGaussian(mean, frame.log_std + found.log_std)

    def frames(self, x: Tensor) -> list[DiagonalGaussian | None]:
        """The linear posterior of the latents of each step; None where there is no linear start."""
        if self.linear is None:
            return [None] * self.config.num_steps
        return [*self.linear.posterior_shares(x, self.config.num_steps)]

    def start(self, num_images: int) -> tuple[Tensor, LSTMState, LSTMState]:
        """The first canvas, (N, 2 C, H, W), and the first states of encoder and decoder."""
        canvas = self.first_canvas.expand(num_images, -1, self.spec.height, self.spec.width)
        return (
            canvas,
            self.encoder.first_state(num_images, *self.grid),
            self.decoder.first_state(num_images, *self.grid),
        )

    def paint(
        self, z: Tensor, canvas: Tensor, seen: tuple[Tensor, Tensor], decoder: LSTMState
    ) -> tuple[Tensor, LSTMState]:
        """The next canvas and the decoder's next state; `seen` is the likelihood that the canvas stands for."""
        decoder = self.decoder([z, self.read_canvas(torch.cat(seen, dim=1))], decoder)
        return canvas + F.pixel_shuffle(self.head_canvas(decoder[0]), self.config.stride), decoder

    def unroll(self, images: Images, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log P(x | z) (N,), KL(q || p) and log p(z) - log q(z | x) of each step (N, steps); nats in float64.

        Shapes: noise (steps, N, latents, h, w), standard normal.
        """
        x = unit_from_levels(images, self.spec.levels, self.first_canvas.dtype)
        canvas, encoder, decoder = self.start(len(images))
        latents: list[Tensor] = []
        seen = self.likelihood(canvas, latents)
        kl: list[Tensor] = []
        log_ratio: list[Tensor] = []
        for unit, frame in zip(noise.unbind(), self.frames(x), strict=True):
            evidence = self.read_image(torch.cat([x, x - seen[0]], dim=1))
            encoder = self.encoder([evidence, decoder[0]], encoder)
            prior, posterior = self.prior(decoder), self.posterior(encoder, frame)
            z = posterior.mean + posterior.log_std.exp() * unit
            latents.append(z)
            kl.append(sum_per_image(posterior.kl(prior)))
            log_ratio.append(sum_per_image(prior.log_density(z) - posterior.log_density(z)))
            canvas, decoder = self.paint(z, canvas, seen, decoder)
            seen = self.likelihood(canvas, latents)
        log_prob = discretized_logistic_log_prob(images, *seen, self.spec.levels)
        return sum_per_image(log_prob), torch.stack(kl, dim=1), torch.stack(log_ratio, dim=1)

    def generate(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-scale, (N, C, H, W), that the decoder makes of the priors' noise (steps, N, latents, h, w)."""
        canvas, _, decoder = self.start(noise.shape[1])
        latents: list[Tensor] = []
        seen = self.likelihood(canvas, latents)
        for unit in noise.unbind():
            prior = self.prior(decoder)
            latents.append(prior.mean + prior.log_std.exp() * unit)
            canvas, decoder = self.paint(latents[-1], canvas, seen, decoder)
            seen = self.likelihood(canvas, latents)
        return seen

    def noise(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Standard normal draws. Shapes: -> (steps, N, latents, h, w)."""
        shape = (self.config.num_steps, num_images, self.config.num_latents, *self.grid)
        return standard_noise(shape, generator, self.first_canvas)

    def latent_steps(self, num_images: int, images: Images | None = None) -> LatentSteps:
        return ConvDRAWSteps(self, num_images, images)


class ConvDRAWSteps(LatentSteps):
    """Canvas and states after some steps, and the posterior of the next one if there are images."""

    def __init__(self, model: ConvDRAW, num_images: int, images: Images | None) -> None:
        self.model, self.num_steps = model, model.config.num_steps
        self.canvas, self.encoder, self.decoder = model.start(num_images)
        self.latents: list[Tensor] = []
        self.seen = model.likelihood(self.canvas, self.latents)
        self.x: Tensor | None = None
        if images is not None:
            self.x = unit_from_levels(images, model.spec.levels, model.first_canvas.dtype)
            self.frames = model.frames(self.x)
        self.found = self._look()

    def prior(self) -> Gaussian:
        prior = self.model.prior(self.decoder)
        return prior.mean, prior.log_std

    def posterior(self) -> Posterior:
        return fixed(self.found)

    def push(self, z: Tensor) -> None:
        self.latents.append(z.to(self.canvas))
        self.canvas, self.decoder = self.model.paint(self.latents[-1], self.canvas, self.seen, self.decoder)
        self.seen = self.model.likelihood(self.canvas, self.latents)
        self.found = self._look()

    def log_pmf(self) -> Tensor:
        return discretized_logistic_log_pmf(*self.seen, self.model.spec.levels)

    def _look(self) -> Gaussian | None:
        """The posterior of the next step; the encoder moves on."""
        if self.x is None or len(self.latents) == self.num_steps:
            return None
        evidence = self.model.read_image(torch.cat([self.x, self.x - self.seen[0]], dim=1))
        self.encoder = self.model.encoder([evidence, self.decoder[0]], self.encoder)
        found = self.model.posterior(self.encoder, self.frames[len(self.latents)])
        return found.mean, found.log_std
