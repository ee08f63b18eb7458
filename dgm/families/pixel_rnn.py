"""What the two PixelRNNs share: stem, residual LSTM layers, and the sub-pixel by sub-pixel form.

Source: van den Oord, Kalchbrenner & Kavukcuoglu (2016), arXiv 1601.06759, sections 3.1 to 3.4 and table 1.
Differs: optimisation (the paper: RMSProp), and the bias of the forget gates starts at one, so that what an earlier
pixel said is kept from the first step on. Training may start at a fitted regression and compute its loss at some of
the pixels (dgm.families.started_softmax).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol

import torch
from torch import Tensor, nn

from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.families.started_softmax import StartedConfigT, StartedSoftmax
from dgm.nets.cached_conv import CachedConv
from dgm.nets.layer_list import LayerList, LayerT
from dgm.nets.lstm_cells import update_in_place
from dgm.nets.masked_conv import MaskedConv2d, feature_degrees, input_degrees
from dgm.nets.pixel_head import PixelHead
from dgm.nets.raster import RasterConditionals
from dgm.types import Images, ImageSpec

NUM_GATES = 4  # input, output, forget, candidate: the order that dgm.nets.lstm_scan asks for
FORGET = 2


class CachedLayer(Protocol):
    """Incremental form of a residual layer; its features are sorted by degree."""

    def start_row(self) -> None:
        """Called before the first pixel of each row."""
        ...

    def step(self, x: Tensor, column: int, degree: int) -> Tensor:
        """Shapes: (N, stream features of the degree) -> unchanged."""
        ...


class PixelRNN(StartedSoftmax[StartedConfigT], Generic[StartedConfigT, LayerT]):
    """7x7 convolution with mask A, residual LSTM layers of 2h features, a head."""

    stem: MaskedConv2d
    layers: LayerList[LayerT]
    readout: PixelHead

    def build(self, layer: Callable[[ImageSpec, int], LayerT], num_hidden: int, num_layers: int) -> Tensor:
        """Makes stem and layers of h = `num_hidden`; the degrees of the features that the head will read."""
        stream = feature_degrees(2 * num_hidden, self.spec)
        self.stem = MaskedConv2d(input_degrees(self.spec), stream, (7, 7), "A")
        self.layers = LayerList(layer(self.spec, num_hidden) for _ in range(num_layers))
        return stream

    def scaled(self, values: Tensor) -> Tensor:
        """Levels as numbers in [-1, 1] of the network's type. Shapes: unchanged."""
        return unit_from_levels(values, self.spec.levels, self.stem.weight.dtype)

    def features(self, images: Images) -> Tensor:
        """What the head reads. Shapes: (N, C, H, W) -> (N, 2h, H, W)."""
        x = self.stem(self.scaled(images))
        for layer in self.layers:
            x = layer(x)
        return x

    def pixel_features(self, images: Images) -> Tensor:
        return self.features(images).flatten(2).transpose(1, 2)

    def network_logits(self, features: Tensor) -> Tensor:
        return self.readout.logits_of_pixels(features)


class CachedPixelRNN(RasterConditionals):
    """Each activation computed once: a sub-pixel costs the features of its own degree at its own pixel."""

    @torch.no_grad()
    def __init__(self, model: PixelRNN[Any, Any], layers: Sequence[CachedLayer], num_images: int) -> None:
        self.model, self.layers = model, layers
        stream = feature_degrees(len(model.stem.bias), model.spec)
        self.stem = CachedConv(model.stem, input_degrees(model.spec), stream, num_images, model.spec)
        self.readout = model.readout.cached(num_images, model.start_stepper(num_images))
        self.begin(model.spec)

    def accept(self, values: Tensor, column: int, channel: int) -> None:
        self.stem.slot(column, channel)[:, 0] = self.model.scaled(values)
        self.readout.accept(values)

    def start_row(self) -> None:
        self.stem.start_row()
        for layer in self.layers:
            layer.start_row()

    def advance(self, column: int, channel: int) -> Tensor:
        x = self.stem.step(column, channel)
        for layer in self.layers:
            x = layer.step(x, column, channel)
        return self.readout.log_pmf(x, channel)


def state_weight(num_cells: int, num_hidden: int) -> nn.Parameter:
    """The weight from the h of `num_cells` cells to the gates. Shapes: -> (num_cells * h, 4h)."""
    return nn.Parameter(torch.randn(num_cells * num_hidden, NUM_GATES * num_hidden) / math.sqrt(num_cells * num_hidden))


@torch.no_grad()
def start_residual(input_to_state: MaskedConv2d, up: MaskedConv2d) -> None:
    """Sets the bias of the forget gates to one, and what the layer adds to its input to zero."""
    input_to_state.bias.view(-1, NUM_GATES, up.weight.shape[1])[:, FORGET] = 1.0
    nn.init.zeros_(up.weight)


def position_major(x: Tensor) -> Tensor:
    """Shapes: (N, C, H, W) -> (H * W, N, C)."""
    return x.flatten(2).permute(2, 0, 1).contiguous()


def channel_major(h: Tensor, like: Tensor) -> Tensor:
    """Shapes: (H * W, N, C), (N, _, H, W) -> (N, C, H, W)."""
    return h.permute(1, 2, 0).unflatten(2, like.shape[2:])


def update_cell(gates: Tensor, c: Tensor, h: Tensor) -> None:
    """One LSTM cell in place: writes the new c and h. Shapes: (N, 4h), (N, h), (N, h)."""
    gate_in, gate_out, forget, candidate = gates.chunk(NUM_GATES, dim=1)
    update_in_place(gate_in, forget, gate_out, candidate, c, h)


def by_part(order: Tensor, num_parts: int) -> Tensor:
    """The order of `num_parts` stacked copies, each in `order`. Shapes: (h,) -> (num_parts * h,)."""
    return (torch.arange(num_parts).to(order)[:, None] * len(order) + order).flatten()
