"""Gated PixelCNN: a vertical and a horizontal stack of gated convolutions, without the blind spot of the PixelCNN.

Source: van den Oord et al. (2016), arXiv 1606.05328, sections 2.1 to 2.3 and figure 2.
Differs: the size for CIFAR-10 is not published; 128 features, 15 layers of 5x5 see all of a 32x32 image's past. The
softmax weights are stored as cosine series over the levels. Training may start at a fitted regression and compute its
loss at some of the pixels (dgm/families/started_softmax.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.families.started_softmax import StartedSoftmax, StartedSoftmaxConfig
from dgm.model_api.ancestral import Conditionals
from dgm.nets.cached_conv import CachedConv, CachedPointwise
from dgm.nets.layer_list import LayerList
from dgm.nets.masked_conv import MaskedConv2d, feature_degrees, input_degrees
from dgm.nets.raster import RasterConditionals
from dgm.nets.softmax_head import SoftmaxHead
from dgm.types import Images, ImageSpec

STEM_KERNEL = 7


class GatedPixelCNNConfig(StartedSoftmaxConfig):
    """num_features: p of the paper, of each stack. num_layers and kernel_size (odd): layers after the 7x7 one."""

    num_features: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    kernel_size: int = Field(gt=0)
    num_head_features: int = Field(gt=0)


def gate(x: Tensor, dim: int = 1) -> Tensor:
    """tanh of the first half times sigmoid of the second. Shapes: (..., 2p, ...) -> (..., p, ...)."""
    value, control = x.chunk(2, dim)
    return torch.tanh(value) * torch.sigmoid(control)


class GatedLayer(nn.Module):
    """One layer of both stacks. Shapes: vertical (N, I, H, W), horizontal (N, I, H, W) -> (N, p, H, W) each.

    The vertical map of a row sees that row and those above, so what it tells the horizontal stack is shifted down by
    one row. Only the horizontal stack sees the current row, and only it needs degrees.
    Source: van den Oord et al. (2016), arXiv 1606.05328, figure 2; the first layer has mask A and no residual.
    """

    def __init__(self, num_features: int, kernel_size: int, spec: ImageSpec, is_first: bool = False) -> None:
        super().__init__()
        degrees, self.is_first = feature_degrees(num_features, spec), is_first
        self.in_degrees = input_degrees(spec) if is_first else degrees
        self.reach = kernel_size // 2
        self.vertical = nn.Conv2d(len(self.in_degrees), 2 * num_features, (self.reach + 1, kernel_size))
        self.link = nn.Conv2d(2 * num_features, 2 * num_features, 1)
        gate_degrees = feature_degrees(num_features, spec, num_parts=2)
        self.horizontal = MaskedConv2d(self.in_degrees, gate_degrees, (1, kernel_size), "A" if is_first else "B")
        self.out = MaskedConv2d(degrees, degrees, (1, 1), "B")
        self.skip = MaskedConv2d(degrees, degrees, (1, 1), "B")

    def forward(self, vertical: Tensor, horizontal: Tensor) -> tuple[Tensor, Tensor]:
        above = self.vertical(F.pad(vertical, (self.reach, self.reach, self.reach, 0)))
        shifted = F.pad(above, (0, 0, 1, 0))[:, :, :-1]
        features = self.out(gate(self.horizontal(horizontal) + self.link(shifted)))
        return gate(above), features if self.is_first else features + horizontal


class GatedPixelCNN(StartedSoftmax[GatedPixelCNNConfig]):
    """A 7x7 layer, then layers of kernel_size; the head reads the sum of the skips of all horizontal maps."""

    config_type = GatedPixelCNNConfig

    def __init__(self, spec: ImageSpec, config: GatedPixelCNNConfig) -> None:
        super().__init__(spec, config)
        p = config.num_features
        stem = GatedLayer(p, STEM_KERNEL, spec, is_first=True)
        self.layers = LayerList([stem, *(GatedLayer(p, config.kernel_size, spec) for _ in range(config.num_layers))])
        self.readout = SoftmaxHead(feature_degrees(p, spec), config.num_head_features, spec, self.start is not None)

    def scaled(self, values: Tensor) -> Tensor:
        """Levels as numbers in [-1, 1] of the network's type. Shapes: unchanged."""
        return unit_from_levels(values, self.spec.levels, self.readout.first.bias.dtype)

    def features(self, images: Images) -> Tensor:
        """Sum of the skips. Shapes: (N, C, H, W) -> (N, p, H, W)."""
        vertical = horizontal = self.scaled(images).contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal)
            skips.append(layer.skip(horizontal))
        return torch.stack(skips).sum(0)

    def pixel_features(self, images: Images) -> Tensor:
        return self.features(images).flatten(2).transpose(1, 2)

    def network_logits(self, features: Tensor) -> Tensor:
        return self.readout.logits_of_pixels(features)

    def conditionals(self, num_images: int) -> Conditionals:
        return CachedGatedPixelCNN(self, num_images)


class CachedGatedLayer:
    """Incremental form of a GatedLayer: the vertical stack row by row, the horizontal one degree by degree."""

    def __init__(self, layer: GatedLayer, num_images: int, spec: ImageSpec) -> None:
        self.layer = layer
        gates = feature_degrees(len(layer.out.bias), spec, num_parts=2)
        degrees = feature_degrees(len(layer.out.bias), spec)
        self.order = gates.argsort(stable=True)
        self.horizontal = CachedConv(layer.horizontal, layer.in_degrees, gates, num_images, spec)
        out, skip = layer.out.masked_weight()[:, :, 0, 0], layer.skip.masked_weight()[:, :, 0, 0]
        self.out = CachedPointwise(out, layer.out.bias, degrees, degrees, num_images, spec)
        self.skip = CachedPointwise(skip, layer.skip.bias, degrees, degrees, num_images, spec)
        reach = layer.reach
        shape = (num_images, len(layer.in_degrees), reach + 1, spec.width + 2 * reach)
        self.rows = layer.vertical.weight.new_zeros(shape)
        self.above = layer.vertical.weight.new_zeros(num_images, len(gates), 1, spec.width)

    def start_row(self) -> None:
        """Hands what the rows above say to the horizontal stack."""
        self.horizontal.start_row(self.layer.link(self.above)[:, self.order, 0].transpose(1, 2))

    def finish_row(self, row: Tensor) -> Tensor:
        """The vertical map of a finished row. Shapes: (N, I, 1, W) -> (N, p, 1, W)."""
        reach = self.layer.reach
        self.rows[:, :, :-1] = self.rows[:, :, 1:].clone()
        self.rows[:, :, -1:, reach : reach + row.shape[-1]] = row
        self.above = self.layer.vertical(self.rows)
        return gate(self.above)

    def step(self, column: int, degree: int) -> Tensor:
        """The horizontal map without its residual. Shapes: -> (N, features of the degree)."""
        self.out.slots[degree].copy_(gate(self.horizontal.step(column, degree)))
        return self.out.step(degree)

    def step_skip(self, horizontal: Tensor, degree: int) -> Tensor:
        self.skip.slots[degree].copy_(horizontal)
        return self.skip.step(degree)


class CachedGatedPixelCNN(RasterConditionals):
    """Each activation computed once: a sub-pixel costs the horizontal features of its own degree at its own pixel."""

    @torch.no_grad()
    def __init__(self, model: GatedPixelCNN, num_images: int) -> None:
        self.model, spec = model, model.spec
        self.layers = [CachedGatedLayer(layer, num_images, spec) for layer in model.layers]
        self.readout = model.readout.cached(num_images, model.start_stepper(num_images))
        self.row = model.readout.first.bias.new_zeros(num_images, spec.channels, 1, spec.width)
        self.is_first_row = True
        self.begin(spec)

    def accept(self, values: Tensor, column: int, channel: int) -> None:
        x = self.model.scaled(values)
        self.row[:, channel, 0, column] = x
        self.layers[0].horizontal.slot(column, channel)[:, 0] = x
        self.readout.accept(values)

    def start_row(self) -> None:
        vertical = self.row
        for layer in self.layers:
            if not self.is_first_row:
                vertical = layer.finish_row(vertical)
            layer.start_row()
        self.is_first_row = False

    def advance(self, column: int, channel: int) -> Tensor:
        horizontal = self.layers[0].step(column, channel)
        skips = self.layers[0].step_skip(horizontal, channel)
        for layer in self.layers[1:]:
            layer.horizontal.slot(column, channel).copy_(horizontal)
            horizontal = horizontal + layer.step(column, channel)
            skips += layer.step_skip(horizontal, channel)
        return self.readout.log_pmf(skips, channel)
