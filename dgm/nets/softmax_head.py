"""The head of the models with a softmax over levels: features of a pixel -> logits of its sub-pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgm.distributions import categorical
from dgm.nets.level_logits import cosine_basis, full_precision_linear
from dgm.nets.masked_conv import degree_mask, input_degrees
from dgm.nets.neighbour_regression import NUM_SHAPES, NeighbourStepper, added
from dgm.nets.pixel_head import CachedPixelHead, PixelHead
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
        self.basis = nn.Buffer(cosine_basis(spec.levels).float(), persistent=False)
        mask = degree_mask(in_degrees, input_degrees(spec), "B")
        self.mask = nn.Buffer(mask.float().unsqueeze(1), persistent=False)

    def masked_weight(self) -> Tensor:
        """Shapes: -> (C * levels, I)."""
        with torch.autocast(self.basis.device.type, enabled=False):
            return (self.basis @ (self.coefficients * self.mask)).flatten(0, 1)

    def bias(self) -> Tensor:
        """Shapes: -> (C * levels,)."""
        with torch.autocast(self.basis.device.type, enabled=False):
            return (self.bias_coefficients @ self.basis.T).flatten()

    def idle_weights(self) -> dict[str, Tensor]:
        """What the mask forbids, and the cosine that is the same at all levels: the softmax cancels it."""
        weights = (self.mask == 0).expand_as(self.coefficients).clone()
        biases = torch.zeros_like(self.bias_coefficients, dtype=torch.bool)
        weights[:, 0], biases[:, 0] = True, True
        return {"coefficients": weights, "bias_coefficients": biases}

    def forward(self, features: Tensor) -> Tensor:
        logits = full_precision_linear(features.permute(0, 2, 3, 1), self.masked_weight(), self.bias())
        return logits.unflatten(-1, self.bias_coefficients.shape)


class ShapeAmounts(nn.Module):
    """A degree-masked linear map to how much of each shape of a start the logits get, zero at first.

    Shapes: (N, I, H, W) -> (N, H, W, C, NUM_SHAPES).
    """

    def __init__(self, in_degrees: Tensor, spec: ImageSpec) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(spec.channels, NUM_SHAPES, len(in_degrees)))
        self.bias = nn.Parameter(torch.zeros(spec.channels, NUM_SHAPES))
        mask = degree_mask(in_degrees, input_degrees(spec), "B")
        self.mask = nn.Buffer(mask.float().unsqueeze(1), persistent=False)

    def masked_weight(self) -> Tensor:
        """Shapes: -> (C, NUM_SHAPES, I)."""
        return self.weight * self.mask

    def idle_weights(self) -> dict[str, Tensor]:
        """What the mask forbids."""
        return {"weight": (self.mask == 0).expand_as(self.weight)}

    def forward(self, features: Tensor) -> Tensor:
        weight = self.masked_weight().flatten(0, 1)
        amounts = full_precision_linear(features.permute(0, 2, 3, 1), weight, self.bias.flatten())
        return amounts.unflatten(-1, self.bias.shape)


class SoftmaxHead(PixelHead):
    """Hidden layers, then the logits of every level. 1024 hidden features are published for CIFAR-10.

    has_start: the amounts of the shapes of a start (dgm.nets.neighbour_regression) follow the logits of a sub-pixel.
    """

    def __init__(self, in_degrees: Tensor, num_features: int, spec: ImageSpec, has_start: bool = False) -> None:
        super().__init__(in_degrees, num_features, spec)
        self.head_logits = CosineLogits(self.degrees, spec)
        self.head_shapes = ShapeAmounts(self.degrees, spec) if has_start else None

    def logits(self, features: Tensor) -> Tensor:
        hidden = self.hidden(features)
        logits = self.head_logits(hidden)
        return logits if self.head_shapes is None else torch.cat([logits, self.head_shapes(hidden)], dim=-1)

    def last_layer(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of what `logits` reads from the hidden features. Shapes: (C, outputs, I), (C, outputs)."""
        weight = self.head_logits.masked_weight().view_as(self.head_logits.coefficients)
        bias = self.head_logits.bias().view_as(self.head_logits.bias_coefficients)
        if self.head_shapes is None:
            return weight, bias
        return torch.cat([weight, self.head_shapes.masked_weight()], 1), torch.cat([bias, self.head_shapes.bias], 1)

    def cached(self, num_images: int, start: NeighbourStepper | None) -> CachedSoftmaxHead:
        return CachedSoftmaxHead(self, num_images, start)


class CachedSoftmaxHead(CachedPixelHead):
    """Incremental form of a SoftmaxHead."""

    def __init__(self, head: SoftmaxHead, num_images: int, start: NeighbourStepper | None) -> None:
        weight, bias = head.last_layer()
        degrees = input_degrees(head.spec).repeat_interleave(bias.shape[1])
        super().__init__(head, weight.flatten(0, 1), bias.flatten(), degrees, num_images)
        self.start = start

    def accept(self, values: Tensor) -> None:
        if self.start is not None:
            self.start.push(values)

    def log_pmf(self, features: Tensor, degree: int) -> Tensor:
        logits = self.outputs(features, degree)
        return categorical.log_pmf(logits if self.start is None else added(logits, *self.start.levels()))
