"""Base class of the output heads: from the features of a pixel to the distributions of its sub-pixels.

Source: van den Oord et al. (2016), arXiv 1601.06759, table 1: two times (ReLU, 1x1 convolution with mask B).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.nets.cached_conv import CachedPointwise
from dgm.nets.masked_conv import MaskedConv2d, feature_degrees
from dgm.nets.neighbour_regression import NeighbourStepper
from dgm.types import ImageSpec


class PixelHead(nn.Module, ABC):
    """Two hidden layers, then what a subclass makes of them.

    Only its own last layer is called `head...`: the hidden layers learn like the rest of the network (see
    dgm.engine.optimizers), so a model names this module `readout`.
    Shapes: features (N, I, H, W).
    """

    def __init__(self, in_degrees: Tensor, num_features: int, spec: ImageSpec) -> None:
        super().__init__()
        self.in_degrees, self.spec = in_degrees, spec
        self.degrees = feature_degrees(num_features, spec)
        self.first = MaskedConv2d(in_degrees, self.degrees, (1, 1), "B")
        self.second = MaskedConv2d(self.degrees, self.degrees, (1, 1), "B")

    def hidden(self, features: Tensor) -> Tensor:
        """Shapes: (N, I, H, W) -> (N, num_features, H, W)."""
        return self.second(F.relu(self.first(F.relu(features))))

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """Logits of every sub-pixel, then what a start needs. Shapes: -> (N, H, W, C, levels [+ NUM_SHAPES])."""

    def logits_of_pixels(self, features: Tensor) -> Tensor:
        """The same of any pixels, whose neighbours do not matter. Shapes: (N, Q, I) -> (N, Q, C, ...)."""
        return self.logits(features.transpose(1, 2).unsqueeze(3)).squeeze(2)

    @abstractmethod
    def cached(self, num_images: int, start: NeighbourStepper | None) -> CachedPixelHead:
        """The incremental form; `start` is what training began at, as a head that knows of none takes nothing else."""


class CachedPixelHead(ABC):
    """A head one sub-pixel at a time; features are sorted by degree, and degrees come in order at each pixel."""

    def __init__(self, head: PixelHead, weight: Tensor, bias: Tensor, out_degrees: Tensor, num_images: int) -> None:
        """`weight` (O, num_features), `bias` (O,) and `out_degrees` (O,) are those of the last layer."""

        def cached(layer: MaskedConv2d, in_degrees: Tensor) -> CachedPointwise:
            return CachedPointwise(
                layer.masked_weight()[:, :, 0, 0], layer.bias, in_degrees, head.degrees, num_images, head.spec
            )

        self.first, self.second = cached(head.first, head.in_degrees), cached(head.second, head.degrees)
        self.last = CachedPointwise(weight, bias, head.degrees, out_degrees, num_images, head.spec)

    def outputs(self, features: Tensor, degree: int) -> Tensor:
        """The last layer's outputs for one sub-pixel. Shapes: (N, inputs of the degree) -> (N, outputs of it)."""
        torch.clamp_min(features, 0, out=self.first.slots[degree])
        torch.clamp_min(self.first.step(degree), 0, out=self.second.slots[degree])
        self.last.slots[degree].copy_(self.second.step(degree))
        return self.last.step(degree)

    def accept(self, values: Tensor) -> None:
        """Takes in the levels of the next sub-pixel, where a start looks at them. Shapes: (N,) int64."""
        return

    @abstractmethod
    def log_pmf(self, features: Tensor, degree: int) -> Tensor:
        """Natural-log probabilities of one sub-pixel. Shapes: (N, inputs of the degree) -> (N, levels)."""
