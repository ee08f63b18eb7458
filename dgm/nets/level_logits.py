"""The last layer of a softmax over levels, its weights expressed in a cosine basis over the levels.

The functions are those of a plain linear layer; only the parameters differ. Neighbouring levels are alike, and in this
basis one gradient step (of an optimizer that scales each parameter by itself) changes neighbouring levels together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NUM_FAST_FREQUENCIES = 8.0


def cosine_basis(levels: int) -> Tensor:
    """Column k is cos(pi k (v + 1/2) / levels) at level v, damped by 1 / (1 + k / 8). Shapes: -> (levels, levels).

    The columns are orthogonal and none is zero (a type-II discrete cosine transform), so that every weight is reached;
    damped columns learn more slowly, so that slopes and bumps come before the grain of single levels.
    """
    frequency = torch.arange(levels, dtype=torch.float64)
    phase = (frequency.unsqueeze(1) + 0.5) * frequency * (math.pi / levels)
    return torch.cos(phase) / (1 + frequency / NUM_FAST_FREQUENCIES)


def full_precision_linear(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The linear map in the type of its weight, under autocast too. Shapes: (..., F), (K, F), (K,) -> (..., K).

    Logits of ten or twenty rounded to bfloat16's three digits cost up to 0.2 bits per sub-pixel.
    """
    with torch.autocast(features.device.type, enabled=False):
        return nn.functional.linear(features.to(weight.dtype), weight, bias)


class LevelLogits(nn.Module):
    """Logits of the levels, zero at first: an untrained model is exactly uniform. Shapes: (..., F) -> (..., levels)."""

    def __init__(self, num_features: int, levels: int) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.zeros(levels, num_features))
        self.bias = nn.Parameter(torch.zeros(levels))
        self.basis = nn.Buffer(cosine_basis(levels).to(torch.get_default_dtype()), persistent=False)

    def linear(self) -> tuple[Tensor, Tensor]:
        """The weight and the bias of the linear map, (levels, F) and (levels,), to compute once and use often."""
        with torch.autocast(self.basis.device.type, enabled=False):
            return self.basis @ self.coefficients, self.basis @ self.bias

    def idle_weights(self) -> dict[str, Tensor]:
        """The cosine that is the same at all levels: the softmax cancels it."""
        weights, biases = (torch.zeros_like(each, dtype=torch.bool) for each in (self.coefficients, self.bias))
        weights[0], biases[0] = True, True
        return {"coefficients": weights, "bias": biases}

    def forward(self, features: Tensor) -> Tensor:
        return full_precision_linear(features, *self.linear())
