"""PixelCNN: a fully convolutional network of masked 3x3 convolutions and a softmax over levels.

Source: van den Oord, Kalchbrenner & Kavukcuoglu (2016), arXiv 1601.06759, sections 3.3 to 3.6 and table 1.
Differs: Muon instead of RMSProp; the softmax weights are stored as cosine series over the levels. Training may start
at a fitted regression and compute its loss at some of the pixels (dgm/families/started_softmax.py).
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


class PixelCNNConfig(StartedSoftmaxConfig):
    """num_features: h of the paper, the inner width of a block; the residual stream has 2h. Published: 128, 15, 1024.

    One residual block is one layer of the paper.
    """

    num_features: int = Field(gt=0)
    num_blocks: int = Field(gt=0)
    num_head_features: int = Field(gt=0)


class ResidualBlock(nn.Module):
    """x plus: ReLU, 1x1 to h, ReLU, 3x3, ReLU, 1x1 back to 2h, all with mask B. Shapes: (N, 2h, H, W), unchanged.

    Source: van den Oord et al. (2016), arXiv 1601.06759, figure 5 (left).
    """

    def __init__(self, num_features: int, spec: ImageSpec) -> None:
        super().__init__()
        outer, inner = feature_degrees(2 * num_features, spec), feature_degrees(num_features, spec)
        self.reduce = MaskedConv2d(outer, inner, (1, 1), "B")
        self.context = MaskedConv2d(inner, inner, (3, 3), "B")
        self.expand = MaskedConv2d(inner, outer, (1, 1), "B")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.expand(F.relu(self.context(F.relu(self.reduce(F.relu(x))))))


class PixelCNN(StartedSoftmax[PixelCNNConfig]):
    """7x7 convolution with mask A, residual blocks with mask B, softmax head."""

    config_type = PixelCNNConfig

    def __init__(self, spec: ImageSpec, config: PixelCNNConfig) -> None:
        super().__init__(spec, config)
        outer = feature_degrees(2 * config.num_features, spec)
        self.stem = MaskedConv2d(input_degrees(spec), outer, (7, 7), "A")
        self.blocks = LayerList(ResidualBlock(config.num_features, spec) for _ in range(config.num_blocks))
        self.readout = SoftmaxHead(outer, config.num_head_features, spec, self.start is not None)

    def scaled(self, values: Tensor) -> Tensor:
        """Levels as numbers in [-1, 1] of the network's type. Shapes: unchanged."""
        return unit_from_levels(values, self.spec.levels, self.stem.weight.dtype)

    def features(self, images: Images) -> Tensor:
        """What the head reads. Shapes: (N, C, H, W) -> (N, 2 * num_features, H, W)."""
        x = self.scaled(images).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x

    def pixel_features(self, images: Images) -> Tensor:
        return self.features(images).flatten(2).transpose(1, 2)

    def network_logits(self, features: Tensor) -> Tensor:
        return self.readout.logits_of_pixels(features)

    def conditionals(self, num_images: int) -> Conditionals:
        return CachedPixelCNN(self, num_images)


class CachedBlock:
    """Incremental form of a ResidualBlock. Shapes: (N, features of the degree) -> unchanged."""

    def __init__(self, block: ResidualBlock, num_images: int, spec: ImageSpec) -> None:
        num_features = len(block.context.bias)
        inner, outer = feature_degrees(num_features, spec), feature_degrees(2 * num_features, spec)
        reduce, expand = block.reduce.masked_weight()[:, :, 0, 0], block.expand.masked_weight()[:, :, 0, 0]
        self.reduce = CachedPointwise(reduce, block.reduce.bias, outer, inner, num_images, spec)
        self.context = CachedConv(block.context, inner, inner, num_images, spec)
        self.expand = CachedPointwise(expand, block.expand.bias, inner, outer, num_images, spec)

    def step(self, x: Tensor, column: int, degree: int) -> Tensor:
        torch.clamp_min(x, 0, out=self.reduce.slots[degree])
        torch.clamp_min(self.reduce.step(degree), 0, out=self.context.slot(column, degree))
        torch.clamp_min(self.context.step(column, degree), 0, out=self.expand.slots[degree])
        return self.expand.step(degree).add_(x)


class CachedPixelCNN(RasterConditionals):
    """Each activation computed once: a sub-pixel costs the features of its own degree at its own pixel."""

    @torch.no_grad()
    def __init__(self, model: PixelCNN, num_images: int) -> None:
        self.model, spec = model, model.spec
        outer = feature_degrees(2 * model.config.num_features, spec)
        self.stem = CachedConv(model.stem, input_degrees(spec), outer, num_images, spec)
        self.blocks = [CachedBlock(block, num_images, spec) for block in model.blocks]
        self.readout = model.readout.cached(num_images, model.start_stepper(num_images))
        self.begin(spec)

    def accept(self, values: Tensor, column: int, channel: int) -> None:
        self.stem.slot(column, channel)[:, 0] = self.model.scaled(values)
        self.readout.accept(values)

    def start_row(self) -> None:
        self.stem.start_row()
        for block in self.blocks:
            block.context.start_row()

    def advance(self, column: int, channel: int) -> Tensor:
        x = self.stem.step(column, channel)
        for block in self.blocks:
            x = block.step(x, column, channel)
        return self.readout.log_pmf(x, channel)
