"""Base class of the models with a softmax over levels in raster order: a start at a fitted regression, scored pixels.

The logits are those of the network plus the log-probabilities of a regression on the neighbourhood
(dgm.nets.neighbour_regression). The network's are zero at first, so that training begins at the regression and learns
what it misses; the distribution is a softmax over all levels as before, and any softmax can still be reached.
Differs: from the papers of these models, which start at the uniform distribution. `num_start_images: 0` is theirs.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import TypeVar

from dgm.config.parse import Config
from dgm.distributions import categorical
from dgm.model_api.ancestral import Conditionals
from dgm.model_api.contracts import Objective, TrainedAutoregressiveModel
from dgm.nets.neighbour_regression import NeighbourRegression, NeighbourStepper
from dgm.types import Images, ImageSpec


class StartedSoftmaxConfig(Config):
    """num_start_images: training images, the first ones, that the start is fitted to; 0 for none (the uniform one).

    scored_fraction: of the pixels of each training image, drawn anew at each step, on which the loss is computed and
    from which it is scaled up to the image: an unbiased estimate, of more images for the same seconds. Scoring is of
    all pixels.
    """

    num_start_images: int = Field(ge=0)
    scored_fraction: float = Field(gt=0, le=1)


StartedConfigT = TypeVar("StartedConfigT", bound=StartedSoftmaxConfig, default=StartedSoftmaxConfig, covariant=True)


class StartedSoftmax(TrainedAutoregressiveModel[StartedConfigT]):
    """log P(v | past) = log softmax(network + log regression), both functions of the past."""

    hot_method = "nats_at"

    def __init__(self, spec: ImageSpec, config: StartedConfigT) -> None:
        super().__init__(spec, config)
        self.start = NeighbourRegression(spec) if config.num_start_images else None

    @abstractmethod
    def pixel_features(self, images: Images) -> Tensor:
        """What the logits of a pixel are made of. Shapes: (N, C, H, W) -> (N, H * W, F)."""

    @abstractmethod
    def network_logits(self, features: Tensor) -> Tensor:
        """Logits of the network, zero at first. Shapes: (N, Q, F), of any pixels -> (N, Q, C, levels)."""

    @abstractmethod
    def network_conditionals(self, num_images: int) -> Conditionals:
        """The incremental form of the softmax of the network's logits alone."""

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        if self.start is not None:
            self.start.fit(images[: self.config.num_start_images])

    def logits_at(self, images: Images, pixels: Tensor | None) -> Tensor:
        """Logits at some pixels of each image. Shapes: pixels (N, Q) int64, None for all -> (N, Q, C, levels)."""
        logits = self.network_logits(chosen(self.pixel_features(images), pixels))
        if self.start is None:
            return logits
        mean, log_scale = (chosen(each, pixels) for each in self.start.parameters_of(images))
        return logits + self.start.log_pmf(mean, log_scale)

    def nats_at(self, images: Images, pixels: Tensor | None) -> Tensor:
        """log-probability of some pixels of each image. Shapes: pixels (N, Q) int64, None for all -> (N,) float64."""
        values = chosen(images.flatten(2).transpose(1, 2), pixels)
        return categorical.log_prob(self.logits_at(images, pixels), values)

    def objective(self, images: Images, generator: torch.Generator, progress: float) -> Objective:
        num_scored = math.ceil(self.config.scored_fraction * self.spec.num_pixels)
        if num_scored == self.spec.num_pixels:
            nats = self.nats_at(images, None)
        else:
            keys = torch.rand(len(images), self.spec.num_pixels, generator=generator, device=generator.device)
            pixels = keys.topk(num_scored, dim=1, sorted=False).indices.to(images.device)
            nats = self.nats_at(images, pixels) * (self.spec.num_pixels / num_scored)
        return Objective(loss=-nats, nats=nats.detach())

    def log_prob(self, images: Images) -> Tensor:
        return self.nats_at(images, None)

    def log_pmf(self, images: Images) -> Tensor:
        log_pmf = categorical.log_pmf(self.logits_at(images, None))
        return log_pmf.unflatten(1, (self.spec.height, self.spec.width)).permute(0, 3, 1, 2, 4)

    def conditionals(self, num_images: int) -> Conditionals:
        network = self.network_conditionals(num_images)
        return network if self.start is None else StartedConditionals(network, NeighbourStepper(self.start, num_images))

    def num_parameters(self) -> int:
        """Those of the network and, if there is one, of the start."""
        return super().num_parameters() + (0 if self.start is None else self.start.num_parameters())


class StartedConditionals(Conditionals):
    """The conditionals of the network and of the start, multiplied and normalised."""

    def __init__(self, network: Conditionals, start: NeighbourStepper) -> None:
        self.network, self.start = network, start

    def log_pmf(self) -> Tensor:
        return categorical.log_pmf(self.network.log_pmf() + self.start.log_pmf())

    def push(self, values: Tensor) -> None:
        self.network.push(values)
        self.start.push(values)


def chosen(of_pixels: Tensor, pixels: Tensor | None) -> Tensor:
    """Rows of each image. Shapes: (N, H * W, F), (N, Q) int64 or None for all -> (N, Q, F)."""
    if pixels is None:
        return of_pixels
    first = torch.arange(len(pixels), device=pixels.device).unsqueeze(1) * of_pixels.shape[1]
    return of_pixels.flatten(0, 1).index_select(0, (first + pixels).flatten()).unflatten(0, pixels.shape)
