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
from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.distributions.logistic_mixture import num_mixture_parameters
from dgm.distributions.precision import at_least_float32
from dgm.distributions.relative_mixture import RelativeMixture
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

    def mixture_of(self, pixels: Pixels) -> RelativeMixture:
        """The distributions of P pixels."""
        outputs = at_least_float32(self.parameters_of(pixels.features))
        outputs = outputs.unflatten(0, (num_mixture_parameters(self.spec.channels, 1), -1))
        return RelativeMixture.from_outputs(
            outputs, pixels.prediction, pixels.scale, self.local.coefficients, self.spec.levels
        )

    def objective(self, images: Images, generator: torch.Generator, progress: float) -> Objective:
        """-log P(image), estimated without bias from random pixels of each image."""
        count = self.config.pixels_per_image
        shape = (len(images), count)
        pixel = torch.randint(self.spec.num_pixels, shape, generator=generator, device=generator.device)
        image = torch.arange(len(images), device=images.device).repeat_interleave(count)
        pixels = self.reader(self.planes(images), image, pixel.flatten().to(images.device))
        nats = self.mixture_of(pixels).log_prob(pixels.x).view(shape).double().mean(dim=1) * self.spec.num_pixels
        return Objective(loss=-nats, nats=nats.detach())

    def log_prob(self, images: Images) -> Tensor:
        is_cpu = images.device.type == "cpu"
        num_images = max(1, SCORED_PIXELS // self.spec.num_pixels if is_cpu else len(images))
        return torch.cat([self._log_prob_of_few(part) for part in images.split(num_images)])

    def _log_prob_of_few(self, images: Images) -> Tensor:
        values = images.permute(0, 2, 3, 1).flatten(0, 2).long()
        return (
            self.mixture_of(self._all_pixels(images))
            .mixture()
            .log_prob(values)
            .view(len(images), -1)
            .double()
            .sum(dim=1)
        )

    def _all_pixels(self, images: Images) -> Pixels:
        num_pixels = self.spec.num_pixels
        image = torch.arange(len(images), device=images.device).repeat_interleave(num_pixels)
        pixel = torch.arange(num_pixels, device=images.device).repeat(len(images))
        return self.reader(self.planes(images), image, pixel)

    def log_pmf(self, images: Images) -> Tensor:
        values = images.permute(0, 2, 3, 1).flatten(0, 2).long()
        log_pmf = self.mixture_of(self._all_pixels(images)).mixture().log_pmf(values)
        return log_pmf.unflatten(0, (len(images), self.spec.height, self.spec.width)).permute(0, 3, 1, 2, 4)

    def conditionals(self, num_images: int) -> Conditionals:
        return NeighbourhoodConditionals(self, num_images)
