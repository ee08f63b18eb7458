"""Degrees of a masked network: who may read whom, for one order of the inputs and one draw of hidden connections.

Input d has its rank in the order, 0 to D - 1. A hidden unit of degree m reads inputs of rank <= m and is read by
outputs of rank > m, so output d depends on inputs of lower rank than its own and on no others.
Source: Germain et al. (2015), MADE, arXiv 1502.03509, sections 3 and 4.
Differs: ranks count from 0; degrees are spread evenly instead of drawn one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ranks_of(order: Tensor) -> Tensor:
    """Rank of each input in an order (position -> input). Shapes: (D,) -> (D,) int64."""
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=order.device)
    return ranks


def draw_degrees(num_inputs: int, hidden_sizes: Sequence[int], generator: torch.Generator) -> list[Tensor]:
    """Degrees of each hidden layer, each (H,) int64.

    They cover the ranks evenly, at a random offset and in random places: with fewer units than inputs, independent
    draws would leave wide gaps. A later layer takes its degrees from the layer before, so that every unit has something
    to read.
    """
    device = generator.device
    available, degrees = torch.arange(max(num_inputs - 1, 1), device=device), []
    for size in hidden_sizes:
        offset = torch.rand((), generator=generator, dtype=torch.float64, device=device)
        grid = (torch.arange(size, dtype=torch.float64, device=device) + offset) * (len(available) / size)
        available = available[grid.long()]
        degrees.append(available[torch.randperm(size, generator=generator, device=device)])
    return degrees


def may_read(degrees_in: Tensor, degrees_out: Tensor) -> Tensor:
    """Mask of a weight between inputs or hidden units and hidden units. Shapes: (I,), (O,) -> (O, I) bool."""
    return degrees_out.unsqueeze(1) >= degrees_in


def may_read_strictly(degrees_in: Tensor, ranks_out: Tensor) -> Tensor:
    """Mask of a weight into outputs, from inputs or from hidden units. Shapes: (I,), (O,) -> (O, I) bool."""
    return ranks_out.unsqueeze(1) > degrees_in
