"""A fitted distribution of every sub-pixel given its neighbourhood: where the training of a softmax can start.

The mean of a sub-pixel is linear in the pixels above and to the left within `RADIUS`, in all channels, and in the
earlier channels of its own pixel. Its expected absolute error is linear in the absolute errors and the absolute
differences there; the scale of a discretized logistic is a piecewise linear function of that expectation, fitted by
moments. A little is spread over all levels. The probabilities are exact; all is fitted in closed form in seconds.
Source: context modelling of lossless image codecs, e.g. Wu & Memon (1997), "Context-based, adaptive, lossless image
coding", section III. Differs: least squares over training images instead of a fixed predictor.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.distributions.logistic_mixture_pmf import logistic_mixture_pmf
from dgm.distributions.piecewise_linear import piecewise_linear
from dgm.nets.causal_kernels import causal_kernels, causal_pad, with_inside
from dgm.types import Images, ImageSpec

RADIUS = 3  # of the neighbourhood, in pixels
RIDGE = 1e-6  # penalty on squared weights, in multiples of the number of pixels
NUM_SCALES = 32  # knots of the scale as a function of the expected error
UNIFORM_SHARE = 0.002  # probability for the rare pixels that nothing nearby foretells
NUM_SHAPES = 8  # functions over the levels that the network may add to the logits
LOG_PMF_WEIGHT = 0.3  # of the first of them, so that it is of the size of the others
MIN_LOG_SCALE = -9.0
MEAN_ERROR_OF_UNIT_LOGISTIC = 2 * math.log(2)
CHUNK_IMAGES = 32


class NeighbourRegression(nn.Module):
    """P(v | past) = (1 - share) discretized logistic(mean(past), scale(expected |error| given past)) + share / levels.

    Beside the values it reads a plane that is 1 inside the image and 0 outside, so that the intercept adapts at the
    borders. Shapes: images uint8 (N, C, H, W); x their values in [-1, 1] of the buffers' type.
    """

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.spec = spec
        window = (RADIUS + 1, 2 * RADIUS + 1)
        self.mean_kernel = nn.Buffer(torch.zeros(spec.channels, spec.channels + 1, *window))
        self.error_kernel = nn.Buffer(torch.zeros(spec.channels, 3 * spec.channels + 1, *window))
        self.knots = nn.Buffer(torch.arange(NUM_SCALES, dtype=torch.get_default_dtype()).repeat(spec.channels, 1))
        self.log_scales = nn.Buffer(torch.zeros(spec.channels, NUM_SCALES))

    @torch.no_grad()
    def fit(self, images: Images) -> None:
        """Sets all buffers from training images."""
        chunks = images.split(CHUNK_IMAGES)
        values = ((with_inside(x), x) for x in map(self.scaled, chunks))
        self.mean_kernel.copy_(causal_kernels(values, RADIUS, RIDGE, sees_earlier=True))
        planes = [self.error_planes(self.scaled(chunk)) for chunk in chunks]
        errors = ((each, each[:, : self.spec.channels]) for each in planes)
        self.error_kernel.copy_(causal_kernels(errors, RADIUS, RIDGE, sees_earlier=True))
        expected = torch.cat([causal_conv(each, self.error_kernel) for each in planes])
        errors = torch.cat([each[:, : self.spec.channels] for each in planes])
        self._fit_scales(expected.transpose(0, 1).flatten(1), errors.transpose(0, 1).flatten(1))

    def _fit_scales(self, expected: Tensor, errors: Tensor) -> None:
        """Knots at the means of equal bins of the expected error, each with the scale that has the bin's mean error."""
        for c in range(self.spec.channels):
            ordered, order = expected[c].sort()
            bins = zip(ordered.tensor_split(NUM_SCALES), errors[c, order].tensor_split(NUM_SCALES), strict=True)
            means = [(knot.double().mean(), error.double().mean()) for knot, error in bins if len(knot)]
            knots, mean_errors = (torch.stack(each) for each in zip(*means, strict=True))
            log_scales = (mean_errors / MEAN_ERROR_OF_UNIT_LOGISTIC).log().clamp(min=MIN_LOG_SCALE)
            num_spare = NUM_SCALES - len(knots)  # of fewer pixels than knots; the spare ones lie past the last
            spare = knots[-1] + torch.arange(1, num_spare + 1, device=knots.device)
            self.knots[c] = torch.cat([knots, spare]).to(self.knots.dtype)
            self.log_scales[c] = torch.cat([log_scales, log_scales[-1:].expand(num_spare)]).to(self.log_scales.dtype)

    def scaled(self, values: Tensor) -> Tensor:
        """Shapes: unchanged; levels -> [-1, 1]."""
        return unit_from_levels(values, self.spec.levels, self.mean_kernel.dtype)

    def error_planes(self, x: Tensor) -> Tensor:
        """|error| of the mean, |difference| to the left and to the pixel above, 1 inside. Shapes: -> (N, 3C + 1, H, W).

        A difference to what is outside the image is zero.
        """
        error = (x - causal_conv(with_inside(x), self.mean_kernel)).abs()
        left = F.pad((x[..., 1:] - x[..., :-1]).abs(), (1, 0))
        above = F.pad((x[..., 1:, :] - x[..., :-1, :]).abs(), (0, 0, 1, 0))
        return with_inside(torch.cat([error, left, above], dim=1))

    def log_scale(self, expected_error: Tensor, channel: int) -> Tensor:
        """Shapes: (...) -> (...)."""
        return piecewise_linear(expected_error, self.knots[channel], self.log_scales[channel])

    @torch.no_grad()
    def parameters_of(self, images: Images) -> tuple[Tensor, Tensor]:
        """Mean and log-scale of every sub-pixel, pixel by pixel. Shapes: -> (N, H * W, C) each."""
        with torch.autocast(images.device.type, enabled=False):
            x = self.scaled(images)
            mean = causal_conv(with_inside(x), self.mean_kernel)
            expected = causal_conv(self.error_planes(x), self.error_kernel)
            log_scale = torch.stack([self.log_scale(expected[:, c], c) for c in range(self.spec.channels)], dim=1)
        return pixel_major(mean), pixel_major(log_scale)

    @torch.no_grad()
    def levels(self, mean: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Natural-log probabilities of all levels, and the shapes: what can be added to them to say it better.

        The first shape is the logarithm itself, which sharpens or flattens; the others are Chebyshev polynomials of
        2F - 1, F being the distribution function in the middle of each level. They move with the mean and widen with
        the scale, as no function of the level alone does.
        Shapes: (P,), (P,) -> (P, levels), (P, NUM_SHAPES, levels).
        """
        weight = torch.full_like(mean, 1 - UNIFORM_SHARE).unsqueeze(1)
        pmf = logistic_mixture_pmf(weight, mean.unsqueeze(1), log_scale.unsqueeze(1), self.spec.levels)
        pmf.add_(UNIFORM_SHARE / self.spec.levels)
        doubled = pmf.cumsum(dim=1).mul_(2).sub_(pmf).sub_(1).mul_(2)
        shapes = pmf.new_empty(NUM_SHAPES, *pmf.shape)
        log_pmf = pmf.log_()
        torch.mul(log_pmf, LOG_PMF_WEIGHT, out=shapes[0])
        torch.mul(doubled, 0.5, out=shapes[1])
        torch.mul(doubled, shapes[1], out=shapes[2]).sub_(1)
        for j in range(3, NUM_SHAPES):
            torch.mul(doubled, shapes[j - 1], out=shapes[j]).sub_(shapes[j - 2])
        return log_pmf, shapes.transpose(0, 1)

    def num_parameters(self) -> int:
        """Weights that can act: those of the past, and the knots."""
        channels, past = self.spec.channels, 2 * RADIUS * (RADIUS + 1)
        num_planes = self.mean_kernel.shape[1] + self.error_kernel.shape[1]
        own = channels * (channels - 1) + 2 * channels  # of earlier channels of the pixel, and the intercepts
        return channels * past * num_planes + own + 2 * self.knots.numel()


class NeighbourStepper:
    """The regression one sub-pixel at a time, in raster order: keeps the planes that later pixels look at."""

    @torch.no_grad()
    def __init__(self, regression: NeighbourRegression, num_images: int) -> None:
        self.regression, self.spec = regression, regression.spec
        channels, kernel = regression.spec.channels, regression.mean_kernel
        shape = (num_images, channels, self.spec.height, self.spec.width)
        inside = with_inside(kernel.new_zeros(shape))
        self.values = causal_pad(inside, RADIUS)
        self.errors = causal_pad(with_inside(kernel.new_zeros(num_images, 3 * channels, *shape[2:])), RADIUS)
        self.mean_weight, self.error_weight = kernel.flatten(1).T, regression.error_kernel.flatten(1).T
        self.own_mean = kernel[:, :channels, -1, RADIUS]
        self.own_error = regression.error_kernel[:, :channels, -1, RADIUS]
        self.position = 0
        self._start_pixel()

    def _start_pixel(self) -> None:
        """What the pixels before this one say of all its channels; its own values and errors are still zero."""
        self.row, self.column = divmod(self.position // self.spec.channels, self.spec.width)
        rows, columns = (slice(self.row, self.row + RADIUS + 1), slice(self.column, self.column + 2 * RADIUS + 1))
        self.mean = self.values[:, :, rows, columns].flatten(1) @ self.mean_weight
        self.expected = self.errors[:, :, rows, columns].flatten(1) @ self.error_weight

    @torch.no_grad()
    def levels(self) -> tuple[Tensor, Tensor]:
        """`NeighbourRegression.levels` of the next sub-pixel. Shapes: -> (N, levels), (N, NUM_SHAPES, levels)."""
        channel = self.position % self.spec.channels
        log_scale = self.regression.log_scale(self.expected[:, channel], channel)
        return self.regression.levels(self.mean[:, channel], log_scale)

    @torch.no_grad()
    def push(self, values: Tensor) -> None:
        """Fixes the next sub-pixel. Shapes: values (N,) int64."""
        channels = self.spec.channels
        channel, row, column = self.position % channels, self.row + RADIUS, self.column + RADIUS
        x = self.regression.scaled(values)
        error = (x - self.mean[:, channel]).abs()
        self.values[:, channel, row, column], self.errors[:, channel, row, column] = x, error
        if self.column:
            self.errors[:, channels + channel, row, column] = (x - self.values[:, channel, row, column - 1]).abs()
        if self.row:
            self.errors[:, 2 * channels + channel, row, column] = (x - self.values[:, channel, row - 1, column]).abs()
        self.mean = self.mean + x.unsqueeze(1) * self.own_mean[:, channel]
        self.expected = self.expected + error.unsqueeze(1) * self.own_error[:, channel]
        self.position += 1
        if self.position % channels == 0 and self.position < self.spec.num_subpixels:
            self._start_pixel()


def added(outputs: Tensor, log_pmf: Tensor, shapes: Tensor) -> Tensor:
    """Logits of a network that starts at a regression. Shapes: (P, levels + NUM_SHAPES) and as `levels` -> (P, levels).

    outputs: its own logits, then how much of each shape; all zero is the regression itself.
    """
    logits, amounts = outputs.split([log_pmf.shape[1], NUM_SHAPES], dim=1)
    return logits + log_pmf + torch.bmm(amounts.unsqueeze(1), shapes).squeeze(1)


def causal_conv(planes: Tensor, kernel: Tensor) -> Tensor:
    """Shapes: (N, P, H, W), (C, P, R + 1, 2R + 1) -> (N, C, H, W)."""
    return F.conv2d(causal_pad(planes, RADIUS), kernel)


def pixel_major(planes: Tensor) -> Tensor:
    """Shapes: (N, C, H, W) -> (N, H * W, C)."""
    return planes.flatten(2).transpose(1, 2)
