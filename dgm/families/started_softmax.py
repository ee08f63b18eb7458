"""Base class of the models with a softmax over levels in raster order: a start at a fitted regression, scored pixels.

The logits are those of the network, plus the log-probabilities of a regression on the neighbourhood, plus shapes that
move and widen with it, each as much as the network says (dgm.nets.neighbour_regression). All that the network says is
zero at first, so that training begins at the regression and learns what it misses. The distribution is a softmax over
all levels as before, linear in the last features, and any softmax can still be reached.
Differs: from the papers of these models, which start at the uniform distribution. `num_start_images: 0` is theirs.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import TypeVar

from dgm.config.parse import Config
from dgm.distributions import categorical
from dgm.model_api.contracts import Objective, TrainedAutoregressiveModel
from dgm.nets.neighbour_regression import NeighbourRegression, NeighbourStepper, added
from dgm.types import Images, ImageSpec

ROWS_TOGETHER = 256  # sub-pixels whose levels and shapes are computed at once


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
        """What the network gives of any pixels, zero at first: (N, Q, F) -> (N, Q, C, levels [+ NUM_SHAPES])."""

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        if self.start is not None:
            self.start.fit(images[: self.config.num_start_images])

    def logits_at(self, images: Images, pixels: Tensor | None) -> Iterator[Tensor]:
        """Logits of the sub-pixels of some pixels of each image; with a start in parts that a cache can hold.

        Shapes: pixels (N, Q) int64, None for all -> parts of (N * Q * C, levels).
        """
        outputs = self.network_logits(chosen(self.pixel_features(images), pixels)).flatten(0, -2)
        if self.start is None:
            yield outputs
            return
        parameters = (chosen(each, pixels).flatten().split(ROWS_TOGETHER) for each in self.start.parameters_of(images))
        for part, mean, log_scale in zip(outputs.split(ROWS_TOGETHER), *parameters, strict=True):
            yield added(part, *self.start.levels(mean, log_scale))

    def nats_at(self, images: Images, pixels: Tensor | None) -> Tensor:
        """log-probability of some pixels of each image. Shapes: pixels (N, Q) int64, None for all -> (N,) float64."""
        values = chosen(images.flatten(2).transpose(1, 2), pixels).flatten()
        nats: list[Tensor] = []
        first = 0
        for logits in self.logits_at(images, pixels):
            nats.append(categorical.log_prob(logits, values[first : first + len(logits)]))
            first += len(logits)
        return torch.cat(nats).view(len(images), -1).sum(dim=1)

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
        log_pmf = torch.cat([categorical.log_pmf(logits) for logits in self.logits_at(images, None)])
        shape = (len(images), self.spec.height, self.spec.width, self.spec.channels)
        return log_pmf.unflatten(0, shape).permute(0, 3, 1, 2, 4)

    def start_stepper(self, num_images: int) -> NeighbourStepper | None:
        """The incremental form of the start."""
        return None if self.start is None else NeighbourStepper(self.start, num_images)

    def num_parameters(self) -> int:
        """Those of the network and, if there is one, of the start."""
        return super().num_parameters() + (0 if self.start is None else self.start.num_parameters())


def chosen(of_pixels: Tensor, pixels: Tensor | None) -> Tensor:
    """Rows of each image. Shapes: (N, H * W, F), (N, Q) int64 or None for all -> (N, Q, F)."""
    if pixels is None:
        return of_pixels
    first = torch.arange(len(pixels), device=pixels.device).unsqueeze(1) * of_pixels.shape[1]
    return of_pixels.flatten(0, 1).index_select(0, (first + pixels).flatten()).unflatten(0, pixels.shape)
