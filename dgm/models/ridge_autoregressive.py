"""Ridge regression on a causal neighbourhood, with a discretized logistic whose scale follows the local activity.

Everything is in closed form: the mean of a sub-pixel is linear in the pixels above and to the left within `radius`, in
all channels, and in the earlier channels of its own pixel; the expected absolute error is linear in the absolute errors
and differences nearby; the scale is a piecewise linear function of that expectation, fitted by moments. The
probabilities are exact and sum to one, so this is the bar that a learned autoregressive model has to beat.
Source: context modelling of lossless image codecs, e.g. Wu & Memon (1997), "Context-based, adaptive, lossless image
coding", section III. Differs: least squares over the data set instead of a fixed predictor.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.distributions.discretized_logistic import (
    discretized_logistic_log_pmf,
    discretized_logistic_log_prob,
    unit_from_levels,
)
from dgm.distributions.logistic_mixture_pmf import logistic_mixture_pmf
from dgm.distributions.piecewise_linear import piecewise_linear
from dgm.model_api.ancestral import Conditionals
from dgm.model_api.contracts import AutoregressiveModel, Fitted
from dgm.nets.causal_kernels import causal_kernels, causal_pad, with_inside
from dgm.types import Images, ImageSpec

ERROR_OFFSETS = ((0, -1), (-1, 0), (-1, -1), (-1, 1))  # (rows, columns) of the neighbours whose errors count
DIFFERENCE_OFFSETS = (((0, -1), (-1, -1)), ((-1, 0), (-1, -1)), ((-1, 0), (-1, 1)), ((0, -1), (-1, 0)))
MEAN_ERROR_OF_UNIT_LOGISTIC = 2 * math.log(2)
MIN_LOG_SCALE = -9.0

Neighbour = Callable[[int, int], Tensor]  # (row offset, column offset) -> planes (N, 2C + 1, ...) there


class RidgeAutoregressiveConfig(Config):
    """radius: of the neighbourhood, in pixels. ridge: penalty, in multiples of the number of pixels, on squared
    weights. num_scales: knots of the scale as a function of the expected error. uniform_share: probability that is
    spread over all levels, for the rare pixels that nothing nearby foretells. num_fit_images: images fitted on."""

    radius: int = Field(ge=1)
    ridge: float = Field(gt=0)
    num_scales: int = Field(ge=2)
    uniform_share: float = Field(gt=0, lt=1)
    num_fit_images: int = Field(ge=1)


class RidgeAutoregressive(Fitted[RidgeAutoregressiveConfig], AutoregressiveModel[RidgeAutoregressiveConfig]):
    """P(v | past) = discretized logistic(linear(past), scale(expected |error| given past)), and a little uniform.

    Per image it works on 2C + 1 padded planes: C of values in [-1, 1], one that is 1 inside the image and 0 in the
    padding (so that the intercept adapts at the borders), and C of absolute errors of the mean.
    """

    config_type = RidgeAutoregressiveConfig

    def __init__(self, spec: ImageSpec, config: RidgeAutoregressiveConfig) -> None:
        super().__init__(spec, config)
        channels, radius = spec.channels, config.radius
        num_features = channels * (len(ERROR_OFFSETS) + len(DIFFERENCE_OFFSETS) + 1) + 1
        zeros = torch.zeros(channels, channels + 1, radius + 1, 2 * radius + 1, dtype=torch.float64)
        self.mean_kernel = nn.Buffer(zeros)
        self.error_weight = nn.Buffer(torch.zeros(channels, num_features, dtype=torch.float64))
        self.knots = nn.Buffer(torch.arange(config.num_scales, dtype=torch.float64).repeat(channels, 1))
        self.log_scales = nn.Buffer(torch.zeros(channels, config.num_scales, dtype=torch.float64))

    def images_used(self, images: Images, iteration: int | None = None) -> Images:
        return images[: self.config.num_fit_images]

    def start(self, images: Images, generator: torch.Generator) -> None:
        chunks = self.images_used(images).split(64)
        values = ((with_inside(x), x) for x in map(self.scaled, chunks))
        self.mean_kernel.copy_(causal_kernels(values, self.config.radius, self.config.ridge, sees_earlier=True))
        self.error_weight.copy_(self._fit_error(chunks))
        self._fit_scales(chunks)

    def _fit_error(self, chunks: tuple[Tensor, ...]) -> Tensor:
        num_features = self.error_weight.shape[1]
        products = torch.zeros(num_features, num_features, dtype=torch.float64, device=self.device)
        targets = torch.zeros(self.spec.channels, num_features, dtype=torch.float64, device=self.device)
        for chunk in chunks:
            _, planes = self._planes(chunk)
            features = self.features(self._neighbours(planes)).transpose(0, 1).flatten(1)
            errors = self._inside(planes)[:, self.spec.channels + 1 :].transpose(0, 1).flatten(1)
            products += features @ features.T
            targets += errors @ features.T
        weight = torch.zeros_like(self.error_weight)
        num_rows = products[-1, -1]  # the intercept's square
        for c in range(self.spec.channels):
            known = torch.cat([torch.arange(c), torch.arange(self.spec.channels, num_features)]).to(self.device)
            ridge = self.config.ridge * num_rows * torch.eye(len(known), dtype=torch.float64, device=self.device)
            weight[c, known] = torch.linalg.solve(products[known][:, known] + ridge, targets[c, known])
        return weight

    def _fit_scales(self, chunks: tuple[Tensor, ...]) -> None:
        """Knots at quantiles of the expected error; at each the scale whose mean |error| is that of the bin."""
        channels, num_scales = self.spec.channels, self.config.num_scales
        bounds: Tensor | None = None
        sums = torch.zeros(channels, 3, num_scales, dtype=torch.float64, device=self.device)
        for chunk in chunks:
            _, planes = self._planes(chunk)
            expected = self._expected_error(planes).transpose(0, 1).flatten(1).contiguous()
            errors = self._inside(planes)[:, channels + 1 :].transpose(0, 1).flatten(1)
            if bounds is None:
                ranks = torch.arange(1, num_scales, device=self.device) * expected.shape[1] // num_scales
                bounds = expected.sort(dim=1).values[:, ranks].contiguous()
            for c in range(channels):
                bins = torch.bucketize(expected[c], bounds[c])
                sums[c].index_add_(1, bins, torch.stack([torch.ones_like(errors[c]), expected[c], errors[c]]))
        for c, (counts, expected_sums, error_sums) in enumerate(sums):
            is_filled = counts > 0
            knots = expected_sums[is_filled] / counts[is_filled]
            mean_errors = error_sums[is_filled] / counts[is_filled]
            log_scales = (mean_errors / MEAN_ERROR_OF_UNIT_LOGISTIC).log().clamp(min=MIN_LOG_SCALE)
            num_empty = num_scales - len(knots)  # ties between quantiles; the spare knots lie past the last one
            spare = torch.arange(1, num_empty + 1, dtype=torch.float64, device=self.device)
            self.knots[c] = torch.cat([knots, knots[-1] + spare])
            self.log_scales[c] = torch.cat([log_scales, log_scales[-1:].expand(num_empty)])

    def scaled(self, images: Images) -> Tensor:
        """Shapes: unchanged; levels -> float64 in [-1, 1]."""
        return unit_from_levels(images, self.spec.levels, torch.float64)

    def inputs(self, images: Images) -> Tensor:
        """Padded values and the mark of the inside. Shapes: -> float64 (N, C + 1, H + R, W + 2R)."""
        return causal_pad(with_inside(self.scaled(images)), self.config.radius)

    def _planes(self, images: Images) -> tuple[Tensor, Tensor]:
        """Means (N, C, H, W) and all padded planes (N, 2C + 1, H + R, W + 2R)."""
        channels = self.spec.channels
        inputs = self.inputs(images)
        mean = F.conv2d(inputs, self.mean_kernel)
        errors = (self._inside(inputs)[:, :channels] - mean).abs()
        return mean, torch.cat([inputs, causal_pad(errors, self.config.radius)], dim=1)

    def _inside(self, planes: Tensor) -> Tensor:
        radius = self.config.radius
        return planes[:, :, radius:, radius : radius + self.spec.width]

    def _neighbours(self, planes: Tensor) -> Neighbour:
        radius, height, width = self.config.radius, self.spec.height, self.spec.width

        def neighbour(row: int, column: int) -> Tensor:
            top, left = radius + row, radius + column
            return planes[:, :, top : top + height, left : left + width]

        return neighbour

    def features(self, neighbour: Neighbour) -> Tensor:
        """What the expected error is linear in: errors of the pixel's own channels (used by later channels only),
        errors nearby, differences nearby, 1. Shapes: -> (N, features, ...)."""
        channels = self.spec.channels
        here = neighbour(0, 0)
        parts = [here[:, channels + 1 :]]
        parts += [neighbour(*offset)[:, channels + 1 :] for offset in ERROR_OFFSETS]
        for a, b in DIFFERENCE_OFFSETS:
            first, second = neighbour(*a), neighbour(*b)
            both_inside = first[:, channels : channels + 1] * second[:, channels : channels + 1]
            parts.append((first[:, :channels] - second[:, :channels]).abs() * both_inside)
        return torch.cat([*parts, torch.ones_like(here[:, :1])], dim=1)

    def _expected_error(self, planes: Tensor) -> Tensor:
        """Shapes: (N, 2C + 1, H + R, W + 2R) -> (N, C, H, W)."""
        return torch.einsum("nfhw,cf->nchw", self.features(self._neighbours(planes)), self.error_weight)

    def log_scale(self, expected_error: Tensor, channel: int) -> Tensor:
        """Shapes: (...) -> (...)."""
        return piecewise_linear(expected_error, self.knots[channel], self.log_scales[channel])

    def _parameters_of(self, images: Images) -> tuple[Tensor, Tensor]:
        """Mean and log-scale of every sub-pixel, each (N, C, H, W)."""
        mean, planes = self._planes(images)
        expected = self._expected_error(planes)
        log_scales = [self.log_scale(expected[:, c], c) for c in range(self.spec.channels)]
        return mean, torch.stack(log_scales, dim=1)

    def log_prob(self, images: Images) -> Tensor:
        mean, log_scale = self._parameters_of(images)
        log_prob = discretized_logistic_log_prob(images.long(), mean, log_scale, self.spec.levels)
        return self.with_uniform(log_prob).sum(dim=(1, 2, 3))

    def log_pmf(self, images: Images) -> Tensor:
        return self.with_uniform(discretized_logistic_log_pmf(*self._parameters_of(images), self.spec.levels))

    def with_uniform(self, log_prob: Tensor) -> Tensor:
        """(1 - share) p + share / levels, in logarithms. Shapes: unchanged."""
        share = self.config.uniform_share
        uniform = log_prob.new_tensor(math.log(share / self.spec.levels))
        return torch.logaddexp(log_prob + math.log1p(-share), uniform)

    def conditionals(self, num_images: int) -> Conditionals:
        return RidgeConditionals(self, num_images)

    def num_parameters(self) -> int:
        channels, window = self.spec.channels, 2 * self.config.radius * (self.config.radius + 1)
        weights = channels * (window * (channels + 1) + 1 + self.error_weight.shape[1] - channels)
        return weights + channels * (channels - 1) + 2 * self.knots.numel()


class RidgeConditionals(Conditionals):
    """Keeps the padded planes; what a pixel's channels look at is read once per pixel."""

    def __init__(self, model: RidgeAutoregressive, num_images: int) -> None:
        self.model = model
        self.position = 0
        blank = torch.zeros(num_images, *model.spec.shape, dtype=torch.uint8, device=model.device)
        inputs = model.inputs(blank)
        inputs[:, : model.spec.channels] = 0
        self.planes = torch.cat([inputs, torch.zeros_like(inputs[:, : model.spec.channels])], dim=1)
        self.weights = model.mean_kernel.flatten(1)
        self._start_pixel()

    def _start_pixel(self) -> None:
        """Reads the window and the features of the next pixel, its own values and errors still zero."""
        channels, radius = self.model.spec.channels, self.model.config.radius
        row, column = divmod(self.position // channels, self.model.spec.width)

        def neighbour(rows: int, columns: int) -> Tensor:
            return self.planes[:, :, row + radius + rows, column + radius + columns]

        window = self.planes[:, : channels + 1, row : row + radius + 1, column : column + 2 * radius + 1]
        self.window = window.flatten(1)
        self.own_values = self.window.view(window.shape)[:, :channels, -1, radius]
        self.features = self.model.features(neighbour)
        self.own_planes = neighbour(0, 0)
        self._start_channel()

    def _start_channel(self) -> None:
        self.mean = self.window @ self.weights[self.position % self.model.spec.channels]

    def log_pmf(self) -> Tensor:
        channel = self.position % self.model.spec.channels
        log_scale = self.model.log_scale(self.features @ self.model.error_weight[channel], channel)
        share, levels = self.model.config.uniform_share, self.model.spec.levels
        mean, log_scale = self.mean.unsqueeze(1), log_scale.unsqueeze(1)
        pmf = logistic_mixture_pmf(torch.full_like(mean, 1 - share), mean, log_scale, levels)
        return pmf.add_(share / levels).log_()

    def push(self, values: Tensor) -> None:
        channels = self.model.spec.channels
        channel = self.position % channels
        x = unit_from_levels(values, self.model.spec.levels, torch.float64)
        error = (x - self.mean).abs()
        self.own_values[:, channel], self.features[:, channel] = x, error
        self.own_planes[:, channel], self.own_planes[:, channels + 1 + channel] = x, error
        self.position += 1
        if channel + 1 < channels:
            self._start_channel()
        elif self.position < self.model.spec.num_subpixels:
            self._start_pixel()
