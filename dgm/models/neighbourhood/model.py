"""A small network that sees the causal neighbourhood of one pixel, trained on random pixels of many images.

The pixels of one image teach nearly the same: a step that looks at 16 random pixels of each of 256 images learns more
than one that looks at all pixels of 4, for the same arithmetic. Inputs and outputs are relative to a linear prediction
and in units of its expected error (`dgm.nets.local_prediction`), so the network starts at a linear model.
Beyond the lecture. Source: of this benchmark; the mixture is that of Salimans et al. (2017), arXiv 1701.05517, and the
idea of a network on local contexts is older, e.g. Theis & Bethge (2015), arXiv 1506.03478, section 2.2 (MCGSM).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from dgm.config.parse import Config
from dgm.distributions.discretized_logistic import MAX_ABS_LOG_SCALE, unit_from_levels
from dgm.distributions.logistic_mixture import MIN_LOG_SCALE, LogisticMixture, num_mixture_parameters
from dgm.distributions.mixture_log_prob import mixture_log_prob
from dgm.distributions.precision import at_least_float32
from dgm.model_api.ancestral import Conditionals
from dgm.model_api.contracts import AutoregressiveModel, GradientTrained, Objective
from dgm.models.neighbourhood.conditionals import NeighbourhoodConditionals
from dgm.models.neighbourhood.features import NeighbourFeatures, Pixels, Planes
from dgm.models.neighbourhood.network import PixelNetwork
from dgm.nets.local_prediction import LocalPrediction
from dgm.types import Images, ImageSpec

SCORED_PIXELS = 4096  # at a time on a CPU: what they take stays in its cache


class NeighbourhoodConfig(Config):
    """radius: of the neighbourhood, in pixels; residual_radius: of the neighbours whose errors are read too.

    error_rows and error_reach: rows above, and columns to either side, whose mean error is read. pixels_per_image:
    random pixels of each image of a batch that a step learns from. num_fit_images: random training images that the
    linear prediction is fitted to, with the penalty `ridge`, in multiples of their pixels.
    """

    radius: int = Field(ge=1)
    residual_radius: int = Field(ge=1)
    error_rows: int = Field(ge=1)
    error_reach: int = Field(ge=0)
    num_hidden: int = Field(ge=1)
    num_blocks: int = Field(ge=0)
    num_mixtures: int = Field(ge=1)
    pixels_per_image: int = Field(ge=1, le=4096)
    ridge: float = Field(gt=0)
    num_fit_images: int = Field(ge=1)


class Neighbourhood(GradientTrained[NeighbourhoodConfig], AutoregressiveModel[NeighbourhoodConfig]):
    """P(image) = product over pixels of a mixture of discretized logistics, given all pixels of a causal square."""

    config_type = NeighbourhoodConfig
    hot_method = "parameters_of"

    def __init__(self, spec: ImageSpec, config: NeighbourhoodConfig) -> None:
        super().__init__(spec, config)
        if config.residual_radius > config.radius:
            raise ValueError(f"residual_radius {config.residual_radius} is above radius {config.radius}")
        self.local = LocalPrediction(spec, config.radius)
        self.reader = NeighbourFeatures(
            spec, config.radius, config.residual_radius, config.error_rows, config.error_reach
        )
        self.net = PixelNetwork(
            self.reader.num_features,
            self.reader.num_neighbours,
            config.num_hidden,
            config.num_blocks,
            spec.channels,
            config.num_mixtures,
        )

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        """Fits the linear prediction and its expected error."""
        order = torch.randperm(len(images), generator=generator, device=generator.device).to(images.device)
        self.local.fit(images[order[: self.config.num_fit_images]], self.config.ridge)

    def num_parameters(self) -> int:
        """Those of the network, and the fitted numbers of the linear prediction."""
        return super().num_parameters() + self.local.num_parameters()

    def planes(self, images: Images) -> Planes:
        """Shapes: uint8 (N, C, H, W)."""
        local, radius = self.local, self.config.radius
        with (
            torch.no_grad(),
            torch.autocast(images.device.type, enabled=False),
        ):  # half precision is coarser than a level
            x = local.pad(unit_from_levels(images, self.spec.levels, local.predictor.dtype))
            prediction = local.predict(x, local.inside)
            residual = x[:, :, radius:, radius : radius + self.spec.width] - prediction
            above = self.reader.errors_above(residual)
            residual = local.pad(residual)
            return Planes(x, residual, prediction, local.scale(residual, local.inside), above)

    def parameters_of(self, features: Tensor) -> Tensor:
        """The network's outputs. Shapes: (P, F) -> (num_mixture_parameters, P)."""
        return self.net(features)

    def _mixture_of(self, pixels: Pixels) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (M, P), means without the earlier channels (C, M, P), log-scales (C, M, P), coefficients (pairs, M, P)
        of the residuals of the earlier channels."""
        channels = self.spec.channels
        groups = at_least_float32(self.parameters_of(pixels.features))
        groups = groups.unflatten(0, (num_mixture_parameters(channels, 1), -1))
        num_pairs = channels * (channels - 1) // 2
        logits, means, log_scales, coefficients = groups.split([1, channels, channels, num_pairs])
        means = torch.addcmul(pixels.prediction.unsqueeze(1), means, pixels.scale)
        log_scales = (log_scales + pixels.scale.log()).clamp(MIN_LOG_SCALE, MAX_ABS_LOG_SCALE)
        row, column = torch.tril_indices(channels, channels, -1, device=means.device)
        return logits.squeeze(0), means, log_scales, coefficients + self.local.coefficients[row, column].view(-1, 1, 1)

    def _log_prob(self, pixels: Pixels) -> Tensor:
        """log P(pixel | those before it). Shapes: P pixels -> (P,)."""
        logits, means, log_scales, coefficients = self._mixture_of(pixels)
        residual = pixels.x - pixels.prediction
        conditional = [means[0]]
        for channel in range(1, self.spec.channels):
            first = channel * (channel - 1) // 2
            earlier = coefficients[first : first + channel] * residual[:channel].unsqueeze(1)
            conditional.append(means[channel] + earlier.sum(dim=0))
        return mixture_log_prob(pixels.x, logits, torch.stack(conditional), log_scales, self.spec.levels)

    def mixture(self, pixels: Pixels) -> LogisticMixture:
        """The distributions of P pixels; their means are those where the earlier channels are 0 in [-1, 1] units."""
        logits, means, log_scales, coefficients = self._mixture_of(pixels)
        shifted = [means[0]]
        for channel in range(1, self.spec.channels):
            first = channel * (channel - 1) // 2
            earlier = coefficients[first : first + channel] * pixels.prediction[:channel].unsqueeze(1)
            shifted.append(means[channel] - earlier.sum(dim=0))
        log_weights = torch.log_softmax(logits, dim=0).T
        means, log_scales, coefficients = (
            each.permute(2, 0, 1) for each in (torch.stack(shifted), log_scales, coefficients)
        )
        return LogisticMixture(log_weights, means, log_scales, coefficients, self.spec.levels)

    def objective(self, images: Images, generator: torch.Generator, progress: float) -> Objective:
        """-log P(image), estimated without bias from random pixels of each image."""
        count = self.config.pixels_per_image
        shape = (len(images), count)
        pixel = torch.randint(self.spec.num_pixels, shape, generator=generator, device=generator.device)
        image = torch.arange(len(images), device=images.device).repeat_interleave(count)
        pixels = self.reader(self.planes(images), image, pixel.flatten().to(images.device))
        nats = self._log_prob(pixels).view(shape).double().mean(dim=1) * self.spec.num_pixels
        return Objective(loss=-nats, nats=nats.detach())

    def log_prob(self, images: Images) -> Tensor:
        is_cpu = images.device.type == "cpu"
        num_images = max(1, SCORED_PIXELS // self.spec.num_pixels if is_cpu else len(images))
        return torch.cat([self._log_prob_of_few(part) for part in images.split(num_images)])

    def _log_prob_of_few(self, images: Images) -> Tensor:
        values = images.permute(0, 2, 3, 1).flatten(0, 2).long()
        return self.mixture(self._all_pixels(images)).log_prob(values).view(len(images), -1).double().sum(dim=1)

    def _all_pixels(self, images: Images) -> Pixels:
        num_pixels = self.spec.num_pixels
        image = torch.arange(len(images), device=images.device).repeat_interleave(num_pixels)
        pixel = torch.arange(num_pixels, device=images.device).repeat(len(images))
        return self.reader(self.planes(images), image, pixel)

    def log_pmf(self, images: Images) -> Tensor:
        values = images.permute(0, 2, 3, 1).flatten(0, 2).long()
        log_pmf = self.mixture(self._all_pixels(images)).log_pmf(values)
        return log_pmf.unflatten(0, (len(images), self.spec.height, self.spec.width)).permute(0, 3, 1, 2, 4)

    def conditionals(self, num_images: int) -> Conditionals:
        return NeighbourhoodConditionals(self, num_images)
