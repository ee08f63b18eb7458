"""The head of the models with a softmax over levels: features of a pixel -> logits of its sub-pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.nets.cached_conv import CachedPointwise
from dgm.nets.level_logits import cosine_basis
from dgm.nets.masked_conv import MaskedConv2d, degree_mask, feature_degrees, input_degrees, logit_degrees
from dgm.types import ImageSpec


class CosineLogits(nn.Module):
    """A degree-masked linear map to all logits of a pixel, zero at first: an untrained model is exactly uniform.

    The weights are stored as coefficients of cosines over the levels (see dgm.nets.level_logits): the functions and
    the number of parameters are those of the plain layer, but a step for one value also moves its neighbours.
    Shapes: (N, I, H, W) -> (N, H, W, C, levels), the levels contiguous.
    """

    def __init__(self, in_degrees: Tensor, spec: ImageSpec) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.zeros(spec.channels, spec.levels, len(in_degrees)))
        self.bias_coefficients = nn.Parameter(torch.zeros(spec.channels, spec.levels))
        self.basis: Tensor
        self.mask: Tensor
        self.register_buffer("basis", cosine_basis(spec.levels).float(), persistent=False)
        mask = degree_mask(in_degrees, input_degrees(spec), "B")
        self.register_buffer("mask", mask.float().unsqueeze(1), persistent=False)

    def masked_weight(self) -> Tensor:
        """Shapes: -> (C * levels, I)."""
        return (self.basis @ (self.coefficients * self.mask)).flatten(0, 1)

    def bias(self) -> Tensor:
        """Shapes: -> (C * levels,)."""
        return (self.bias_coefficients @ self.basis.T).flatten()

    def forward(self, features: Tensor) -> Tensor:
        logits = F.linear(features.permute(0, 2, 3, 1), self.masked_weight(), self.bias())
        return logits.unflatten(-1, self.bias_coefficients.shape)


class SoftmaxHead(nn.Module):
    """Two times (ReLU, 1x1 convolution with mask B), then the logits.

    Only the logits are called `head...`: the hidden layers learn like the rest of the network (see
    dgm.engine.optimizers), so a model names this module `readout`.
    Shapes: features (N, I, H, W) -> (N, H, W, C, levels).
    Source: van den Oord et al. (2016), arXiv 1601.06759, table 1; 1024 features each for CIFAR-10.
    """

    def __init__(self, in_degrees: Tensor, num_features: int, spec: ImageSpec) -> None:
        super().__init__()
        self.in_degrees, self.spec = in_degrees, spec
        self.degrees = feature_degrees(num_features, spec)
        self.first = MaskedConv2d(in_degrees, self.degrees, (1, 1), "B")
        self.second = MaskedConv2d(self.degrees, self.degrees, (1, 1), "B")
        self.head_logits = CosineLogits(self.degrees, spec)

    def forward(self, features: Tensor) -> Tensor:
        return self.head_logits(self.second(F.relu(self.first(F.relu(features)))))


class CachedSoftmaxHead:
    """Incremental form of a SoftmaxHead. Shapes: features (N, inputs of the degree) -> logits (N, levels)."""

    def __init__(self, head: SoftmaxHead, num_images: int) -> None:
        def cached(layer: MaskedConv2d, in_degrees: Tensor) -> CachedPointwise:
            weight = layer.masked_weight()[:, :, 0, 0]
            return CachedPointwise(weight, layer.bias, in_degrees, head.degrees, num_images, head.spec)

        self.first, self.second = cached(head.first, head.in_degrees), cached(head.second, head.degrees)
        weight, bias = head.head_logits.masked_weight(), head.head_logits.bias()
        degrees = logit_degrees(head.spec)
        self.logits = CachedPointwise(weight, bias, head.degrees, degrees, num_images, head.spec)

    def step(self, features: Tensor, degree: int) -> Tensor:
        """The logits of the sub-pixel whose features these are; degrees come in order at each pixel."""
        torch.clamp_min(features, 0, out=self.first.slots[degree])
        torch.clamp_min(self.first.step(degree), 0, out=self.second.slots[degree])
        self.logits.slots[degree].copy_(self.second.step(degree))
        return self.logits.step(degree)
