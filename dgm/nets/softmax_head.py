"""The head of the models with a softmax over levels: features of a pixel -> logits of its sub-pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgm.distributions import categorical
from dgm.nets.level_logits import cosine_basis, full_precision_linear
from dgm.nets.masked_conv import degree_mask, input_degrees, logit_degrees
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


class SoftmaxHead(PixelHead):
    """Hidden layers, then the logits of every level. 1024 hidden features are published for CIFAR-10."""

    def __init__(self, in_degrees: Tensor, num_features: int, spec: ImageSpec) -> None:
        super().__init__(in_degrees, num_features, spec)
        self.head_logits = CosineLogits(self.degrees, spec)

    def logits(self, features: Tensor) -> Tensor:
        return self.head_logits(self.hidden(features))

    def cached(self, num_images: int) -> CachedSoftmaxHead:
        return CachedSoftmaxHead(self, num_images)


class CachedSoftmaxHead(CachedPixelHead):
    """Incremental form of a SoftmaxHead."""

    def __init__(self, head: SoftmaxHead, num_images: int) -> None:
        weight, bias = head.head_logits.masked_weight(), head.head_logits.bias()
        super().__init__(head, weight, bias, logit_degrees(head.spec), num_images)

    def log_pmf(self, features: Tensor, degree: int) -> Tensor:
        return categorical.log_pmf(self.outputs(features, degree))
