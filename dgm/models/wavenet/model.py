"""WaveNet on the raster sequence of sub-pixels: dilated causal convolutions with gates and a softmax over levels.

Source: van den Oord et al. (2016), arXiv 1609.03499; the paper models audio and has no CIFAR-10 figure or layer widths.
Differs: dilations are counted in sub-pixels, pixels and rows, so that the left neighbour (one pixel back) and the
upper one (one row back) are one hop away; the paper's doubling dilations are `subpixel_dilations` 1, 2, ..., 512 with
the other two lists empty. No mu-law companding: the levels of an image are few. Horizontal position is not given.
Training may start at a fitted regression and compute its loss at some pixels (dgm/families/started_softmax.py).
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from dgm.distributions import categorical
from dgm.families.started_softmax import StartedSoftmax, StartedSoftmaxConfig
from dgm.model_api.ancestral import Conditionals
from dgm.models.wavenet.dilated_stack import DilatedStack, DilatedStepper
from dgm.nets.level_logits import LevelLogits, full_precision_linear
from dgm.nets.neighbour_regression import NUM_SHAPES, added
from dgm.nets.sequence import SubpixelEmbedding, shifted, to_sequence
from dgm.nets.zero_layers import zero_layer
from dgm.types import Images, ImageSpec

Dilations = list[Annotated[int, Field(gt=0)]]


class WaveNetConfig(StartedSoftmaxConfig):
    """One cycle of layers has the sub-pixel dilations, then the pixel and the row dilations; cycles repeat."""

    num_residual_features: int = Field(gt=0)
    num_skip_features: int = Field(gt=0)
    subpixel_dilations: Dilations
    pixel_dilations: Dilations
    row_dilations: Dilations
    num_cycles: int = Field(gt=0)

    def dilations(self, spec: ImageSpec) -> list[int]:
        """Dilation of every layer, in sub-pixels. Raises: ValueError if there is no layer."""
        pixel, row = spec.channels, spec.channels * spec.width
        cycle = [*self.subpixel_dilations, *(pixel * d for d in self.pixel_dilations)]
        cycle += [row * d for d in self.row_dilations]
        if not cycle:
            raise ValueError("subpixel_dilations, pixel_dilations and row_dilations are all empty")
        return cycle * self.num_cycles


class WaveNet(StartedSoftmax[WaveNetConfig]):
    """Sum of skips -> ReLU -> linear -> ReLU -> linear -> softmax over levels."""

    config_type = WaveNetConfig

    def __init__(self, spec: ImageSpec, config: WaveNetConfig) -> None:
        super().__init__(spec, config)
        num_residual, num_skip = config.num_residual_features, config.num_skip_features
        self.embedding = SubpixelEmbedding(spec, num_residual)
        self.stack = DilatedStack(num_residual, num_skip, config.dilations(spec))
        self.head_features = nn.Sequential(nn.ReLU(), nn.Linear(num_skip, num_skip), nn.ReLU())
        self.head = LevelLogits(num_skip, spec.levels)
        self.head_shapes = nn.Linear(num_skip, NUM_SHAPES) if self.start is not None else None
        if self.head_shapes is not None:
            zero_layer(self.head_shapes)

    def pixel_features(self, images: Images) -> Tensor:
        skips = self.stack(self.embedding(shifted(to_sequence(images), self.spec)))
        return skips.reshape(len(images), self.spec.num_pixels, -1)  # sub-pixels of a pixel side by side

    def network_logits(self, features: Tensor) -> Tensor:
        weight, bias = self.last_layer()
        hidden = self.head_features(features.unflatten(-1, (self.spec.channels, -1)))
        return full_precision_linear(hidden, weight, bias)

    def last_layer(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the logits and, with a start, of the amounts of its shapes. Shapes: (O, S), (O,)."""
        weight, bias = self.head.linear()
        if self.head_shapes is None:
            return weight, bias
        return torch.cat([weight, self.head_shapes.weight]), torch.cat([bias, self.head_shapes.bias])

    def conditionals(self, num_images: int) -> Conditionals:
        return WaveNetConditionals(self, num_images)


class WaveNetConditionals(Conditionals):
    """A queue of past inputs for each layer; a step costs one position of the network."""

    @torch.no_grad()
    def __init__(self, model: WaveNet, num_images: int) -> None:
        self.model = model
        self.stepper = DilatedStepper(model.stack, num_images)
        self.features_of_value, self.head = model.embedding.table(), model.last_layer()
        self.start = model.start_stepper(num_images)
        self.position = 0
        self._advance(torch.full((num_images,), model.spec.levels, device=model.device))

    def log_pmf(self) -> Tensor:
        return self.next_log_pmf

    def push(self, values: Tensor) -> None:
        self.position += 1
        if self.start is not None:
            self.start.push(values)
        if self.position < self.model.spec.num_subpixels:
            self._advance(values)

    @torch.no_grad()
    def _advance(self, previous: Tensor) -> None:
        channel = self.model.embedding.channel.weight[self.position % self.model.spec.channels]
        skip = self.stepper.step(self.features_of_value[previous] + channel)
        logits = nn.functional.linear(self.model.head_features(skip), *self.head)
        self.next_log_pmf = categorical.log_pmf(logits if self.start is None else added(logits, *self.start.levels()))
