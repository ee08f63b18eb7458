"""A function of one number by its values at knots."""

from __future__ import annotations

import torch
from torch import Tensor


def piecewise_linear(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Linear between the knots, constant outside: continuous, so that rounding of x stays harmless.

    Shapes: x (...), knots (K,) in rising order and values (K,) -> (...).
    """
    right = torch.searchsorted(knots, x.contiguous()).clamp(1, len(knots) - 1)
    width = (knots[right] - knots[right - 1]).clamp(min=1e-12)
    fraction = ((x - knots[right - 1]) / width).clamp(0, 1)
    return torch.lerp(values[right - 1], values[right], fraction)
