"""A softmax over the levels of each sub-pixel, independent given the logits.

The levels are the last, contiguous axis: on (N, H, W, C, levels) a softmax reads memory once and in order, and a head
that is a matrix product on (N, H, W, features) writes that layout directly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.distributions.precision import at_least_float32


def log_prob(logits: Tensor, values: Tensor) -> Tensor:
    """Natural-log probability of all values of an image, differentiable. Shapes: (N, ..., K), (N, ...) -> float64 (N,).

    `values` are integers in [0, K) in the axis order of the logits. Beside the logits, one array of their size is kept
    for the backward pass.
    """
    logits = at_least_float32(logits)
    nats = F.cross_entropy(logits.flatten(0, -2), values.flatten().long(), reduction="none")
    return -nats.view(len(values), -1).sum(dim=1, dtype=torch.float64)


def log_pmf(logits: Tensor) -> Tensor:
    """Natural-log probabilities of all levels. Shapes: (..., K) -> (..., K), float32 or float64."""
    return torch.log_softmax(at_least_float32(logits), dim=-1)
