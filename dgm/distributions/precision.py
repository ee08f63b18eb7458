"""Numerical precision of distributions: parameters in float32 or wider, sums over an image in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision values (of a network under autocast) as float32; float32 and float64 unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def sum_per_image(values: Tensor) -> Tensor:
    """Sum over all axes but the first, in float64. Shapes: (N, ...) -> (N,) float64."""
    return values.flatten(1).double().sum(dim=1)
