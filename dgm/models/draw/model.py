"""DRAW: a canvas painted in many glimpses, each from its own latents, by two LSTMs and an attention window.

Source: Gregor et al. (2015), arXiv 1502.04623, sections 2 and 3; 64 glimpses, LSTMs of 400, 200 latents and windows of
5 x 5 for CIFAR-10 as commonly cited for its table 3.
Differs: an image is levels, so its likelihood is a logistic integrated over each level's bin (arXiv 1701.05517, section
2.1), its mean the canvas, which is not squashed; the first canvas is the mean image, the window at first a wide grid
over the whole image. Where has_linear_start, a glimpse has a bias of its own for its window, the windows at first tile
the image, and a patch is the reconstruction of probabilistic PCA of tiles plus the decoder's output. z is the
standardised residual of the tile's PCA coefficients, (coefficient - decoder mean) / decoder std; a posterior is the
linear one plus a correction by the encoder. Where there are more glimpses than tiles, those of a tile follow each other
and share out its components, the largest first. Training then starts at the bound of PCA of patches.
"""

from __future__ import annotations

from typing import TypeAlias

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
    unit_from_levels,
)
from dgm.distributions.precision import sum_per_image
from dgm.families.unrolled import UnrolledModel
from dgm.models.draw.attention_window import (
    NUM_ATTENTION_PARAMETERS,
    AttentionWindow,
    parameters_of_cover,
    parameters_of_tiles,
)
from dgm.models.draw.glimpse_steps import GlimpseSteps
from dgm.nets.lstm_cells import LSTMCell, LSTMState
from dgm.nets.patch_pca import PatchPCA
from dgm.nets.zero_layers import zero_layer
from dgm.types import Images, ImageSpec

Canvas: TypeAlias = tuple[Tensor, ...]  # (N, C, H, W): the mean and, where it is painted, what widens the log-scale

POSTERIOR_LOG_STD_RANGE = (-9.0, 4.0)
EXPECTED_LOG_STD_RANGE = (-3.0, 2.0)
TILE_DEVIATION = 0.25  # pixels; of the filters that tile the image


class DRAWConfig(Config):
    """num_steps: glimpses. num_hidden: of each LSTM. num_latents: of each glimpse. Sizes in filters along a side.

    has_subpixel_scale: the canvas also holds the log-scale of each sub-pixel. correction_scale, num_start_images: of
    the linear start, what an output of 1 moves a mean by, in its standard deviations, and the images it is taken over;
    the mean image is taken over as many.
    """

    num_steps: int = Field(ge=1)
    num_hidden: int = Field(ge=1)
    num_latents: int = Field(ge=1)
    read_size: int = Field(ge=2)
    write_size: int = Field(ge=2)
    has_subpixel_scale: bool
    has_linear_start: bool
    correction_scale: float = Field(gt=0)
    num_start_images: int = Field(ge=2)


class DRAW(UnrolledModel[DRAWConfig]):
    """p(z) = prod_t N(z_t; 0, I), q(z | x) = prod_t q(z_t | x, z before t), P(x | z) from the last canvas."""

    config_type = DRAWConfig

    def __init__(self, spec: ImageSpec, config: DRAWConfig) -> None:
        super().__init__(spec, config)
        hidden, self.num_maps = config.num_hidden, spec.channels * (2 if config.has_subpixel_scale else 1)
        self.encoder = LSTMCell(2 * spec.channels * config.read_size**2 + hidden, hidden)
        self.decoder = LSTMCell(config.num_latents, hidden)
        self.head_posterior = nn.Linear(hidden, 2 * config.num_latents)
        self.head_patch = nn.Linear(hidden, self.num_maps * config.write_size**2)
        self.head_read = nn.Linear(hidden, NUM_ATTENTION_PARAMETERS)
        self.head_write = nn.Linear(hidden, NUM_ATTENTION_PARAMETERS)
        self.first_canvas = nn.Parameter(torch.zeros(self.num_maps, spec.height, spec.width))
        self.log_scale = nn.Parameter(torch.full((spec.channels, 1, 1), LOG_SCALE_OF_UNIT_VARIANCE))
        zero_layer(self.head_patch)  # the canvas stays the mean image at first
        self.head_tiles: nn.Parameter | None = None
        self.head_expected: nn.Linear | None = None
        self._set_windows(config)
        if config.has_linear_start:
            self._set_linear_start(config)

    def _set_windows(self, config: DRAWConfig) -> None:
        for head, size in ((self.head_read, config.read_size), (self.head_write, config.write_size)):
            nn.init.zeros_(head.weight)
            with torch.no_grad():
                head.bias.copy_(parameters_of_cover(size, self.spec.height, self.spec.width))
        with torch.no_grad():
            self.head_read.bias[-1] = 0.0  # what is read is not spread out: its gain is 1 at first

    def _set_linear_start(self, config: DRAWConfig) -> None:
        size = config.read_size
        tiles = parameters_of_tiles(size, self.spec.height, self.spec.width, TILE_DEVIATION)
        if config.write_size != size or config.num_steps % len(tiles):
            raise ValueError(
                f"a linear start with windows of {size} takes a multiple of {len(tiles)} steps and write_size {size}"
            )
        self.num_shares = config.num_steps // len(tiles)  # glimpses of a tile, one after the other
        self.linear = PatchPCA(self.spec, size, config.num_latents * self.num_shares)
        tiles = tiles.repeat_interleave(self.num_shares, dim=0)
        self.head_tiles = nn.Parameter(torch.stack([tiles, tiles]))  # of reading and of writing
        self.head_expected = nn.Linear(config.num_hidden, 2 * config.num_latents)
        for head in (self.head_read, self.head_write, self.head_posterior, self.head_expected):
            zero_layer(head)

    @torch.no_grad()
    def prepare(self, images: Images, generator: torch.Generator) -> None:
        picked = torch.randperm(len(images), generator=generator, device=generator.device)
        images = images[picked[: self.config.num_start_images].to(images.device)]
        x = unit_from_levels(images, self.spec.levels, torch.float64)
        mean, channels = x.mean(dim=0), self.spec.channels
        if self.linear is not None:
            self.linear.fit(images)
            grid = (self.spec.height // self.config.read_size, self.spec.width // self.config.read_size)
            mean = self.linear.reconstruct(torch.zeros(1, self.linear.num_used, *grid, device=images.device)).squeeze(0)
            self.linear.mean.zero_()  # the canvas has it from now on
        else:
            self.log_scale.add_((x - mean).std(dim=(0, 2, 3)).clamp(min=1e-3).log()[:, None, None])
        self.first_canvas[:channels].copy_(mean)

    def window(self, step: int, h: Tensor, is_write: bool) -> AttentionWindow:
        """Where the decoder's state h looks at a step. Shapes: (N, hidden)."""
        head, size = (self.head_write, self.config.write_size) if is_write else (self.head_read, self.config.read_size)
        with torch.autocast(h.device.type, enabled=False):
            parameters = head(h)
        if self.head_tiles is not None:
            parameters = parameters + self.head_tiles[int(is_write), step]
        return AttentionWindow.from_parameters(parameters, size, self.spec.height, self.spec.width)

    def expected(self, h: Tensor) -> DiagonalGaussian:
        """Coefficients of the next tile by the decoder's state, those of the linear start. Shapes: -> (N, latents)."""
        assert self.head_expected is not None
        mean, log_std = self.head_expected(h).to(self.first_canvas.dtype).chunk(2, dim=1)
        return DiagonalGaussian(mean, log_std.clamp(*EXPECTED_LOG_STD_RANGE))

    def _linear_posterior(self, step: int, error: Tensor) -> DiagonalGaussian:
        """Of the step's share of the coefficients, given the glimpse of the error. Shapes: -> (N, latents)."""
        assert self.linear is not None
        whole = self.linear.posterior(self.linear.coefficients(error))
        shares = (part.flatten(1).chunk(self.num_shares, dim=1) for part in (whole.mean, whole.log_std))
        mean, log_std = (share[step % self.num_shares] for share in shares)
        return DiagonalGaussian(mean, log_std)

    def _linear_patch(self, step: int, coefficients: Tensor) -> Tensor:
        """What the step's share of the coefficients adds to a tile. Shapes: (N, latents) -> (N, C, size, size)."""
        assert self.linear is not None
        before = step % self.num_shares
        margins = [share * self.config.num_latents for share in (before, self.num_shares - 1 - before)]
        return self.linear.reconstruct(F.pad(coefficients, margins)[:, :, None, None])

    def encode(
        self, step: int, x: Tensor, canvas: Canvas, encoder: LSTMState, decoder: LSTMState
    ) -> tuple[DiagonalGaussian, LSTMState]:
        """q(z_t | x, z before t), (N, latents), and the encoder's next state."""
        window = self.window(step, decoder[0], is_write=False)
        image = window.read(x)
        error = image - window.read(canvas[0])  # reading is linear: the glimpse of the error image
        glimpses = [(window.gain * glimpse).flatten(1) for glimpse in (image, error)]
        encoder = self.encoder([*glimpses, decoder[0]], encoder)
        mean, log_std = self.head_posterior(encoder[0]).to(x.dtype).chunk(2, dim=1)
        if self.linear is not None:
            expected = self.expected(decoder[0])
            start = self._linear_posterior(step, error)
            mean = start.mean + self.config.correction_scale * start.log_std.exp() * mean
            mean = (mean - expected.mean) * torch.exp(-expected.log_std)
            log_std = start.log_std + log_std - expected.log_std
        return DiagonalGaussian(mean, log_std.clamp(*POSTERIOR_LOG_STD_RANGE)), encoder

    def paint(self, step: int, z: Tensor, canvas: Canvas, decoder: LSTMState) -> tuple[Canvas, LSTMState]:
        """The next canvas and the decoder's next state. Shapes: z (N, latents)."""
        if self.linear is not None:
            expected = self.expected(decoder[0])
            z = expected.mean + expected.log_std.exp() * z
        decoder = self.decoder([z], decoder)
        size = self.config.write_size
        patch = self.head_patch(decoder[0]).to(z.dtype).view(-1, self.num_maps, size, size)
        mean, *widening = patch.split(self.spec.channels, dim=1)
        if self.linear is not None:
            noise_std = self.linear.noise_variance.sqrt()
            mean = self._linear_patch(step, z) + self.config.correction_scale * noise_std * mean
        window = self.window(step, decoder[0], is_write=True)
        painted = (window.write(window.gain * part) for part in (mean, *widening))
        return tuple(before + part for before, part in zip(canvas, painted, strict=True)), decoder

    def start(self, num_images: int) -> Canvas:
        """The first canvas."""
        return self.first_canvas.expand(num_images, -1, -1, -1).split(self.spec.channels, dim=1)

    def likelihood(self, canvas: Canvas) -> tuple[Tensor, Tensor]:
        """Mean and log-scale of each sub-pixel's logistic. Shapes: -> twice (N, C, H, W)."""
        mean, log_scale = canvas[0], self.log_scale
        if self.linear is not None:
            log_scale = log_scale + 0.5 * self.linear.noise_variance.log()
        if self.config.has_subpixel_scale:
            log_scale = log_scale + canvas[1]
        return mean, log_scale.clamp(*LOG_SCALE_RANGE).expand_as(mean)

    def unroll(self, images: Images, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log P(x | z) (N,), KL(q || p) and log p(z) - log q(z | x) of each step (N, steps); nats in float64.

        Shapes: noise (steps, N, latents), standard normal.
        """
        x = unit_from_levels(images, self.spec.levels, self.first_canvas.dtype)
        canvas = self.start(len(images))
        encoder, decoder = self.encoder.first_state(len(images)), self.decoder.first_state(len(images))
        kl: list[Tensor] = []
        log_ratio: list[Tensor] = []
        for step, unit in enumerate(noise.unbind()):
            posterior, encoder = self.encode(step, x, canvas, encoder, decoder)
            z = posterior.mean + posterior.log_std.exp() * unit
            prior = DiagonalGaussian.standard(z)
            kl.append(sum_per_image(posterior.kl(prior)))
            log_ratio.append(sum_per_image(prior.log_density(z) - posterior.log_density(z)))
            canvas, decoder = self.paint(step, z, canvas, decoder)
        log_prob = discretized_logistic_log_prob(images, *self.likelihood(canvas), self.spec.levels)
        return sum_per_image(log_prob), torch.stack(kl, dim=1), torch.stack(log_ratio, dim=1)

    def generate(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder makes of latents. Shapes: (steps, N, latents) -> twice (N, C, H, W)."""
        canvas = self.start(noise.shape[1])
        decoder = self.decoder.first_state(noise.shape[1])
        for step, z in enumerate(noise.unbind()):
            canvas, decoder = self.paint(step, z, canvas, decoder)
        return self.likelihood(canvas)

    def noise(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Standard normal draws. Shapes: -> (steps, N, latents)."""
        shape = (self.config.num_steps, num_images, self.config.num_latents)
        return standard_noise(shape, generator, self.first_canvas)

    def latent_steps(self, num_images: int, images: Images | None = None) -> GlimpseSteps:
        return GlimpseSteps(self, num_images, images)
