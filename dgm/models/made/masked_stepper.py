"""A masked network one position at a time: a hidden unit is computed once, when the last value that it reads is known.

No mask is multiplied: a value or a unit that is not yet known is zero, and no weight leads from it to anything known.
Arrays are (features, N), so that a value or a unit of all images is one piece of memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 64  # positions whose direct inputs from before the block come from one matrix product


class MaskedStepper:
    """The hidden layers and the outputs of one mask.

    degrees: of each hidden layer's units (dgm.models.made.autoregressive_mask); x: (D, N), shared with its owner, who
    writes each value into it before `advance`.
    """

    def __init__(self, hidden: Sequence[nn.Linear], head: nn.Linear, degrees: Sequence[Tensor], x: Tensor) -> None:
        self.hidden, self.x = hidden, x
        self.features = [x.new_zeros(len(of_layer), x.shape[1]) for of_layer in degrees]
        self.ready = [_units_by_degree(of_layer, len(x)) for of_layer in degrees]
        self.weight = head.weight.unflatten(0, (len(x), -1))
        self.bias = head.bias.view(len(x), -1, 1)

    def advance(self, num_known: int) -> None:
        """Computes the units that read the values of the first `num_known` positions, the last included."""
        below = self.x
        for linear, features, ready in zip(self.hidden, self.features, self.ready, strict=True):
            units = ready[num_known - 1]
            if len(units):
                features[units] = F.relu(torch.addmm(linear.bias[units].unsqueeze(1), linear.weight[units], below))
            below = features

    def outputs(self, raster: int) -> Tensor:
        """The head's outputs for one sub-pixel, all values before it known. Shapes: -> (N, outputs)."""
        return torch.addmm(self.bias[raster], self.weight[raster], self.features[-1]).T


class LinkStepper:
    """A strictly causal linear map: in blocks of positions, what earlier blocks say comes from one matrix product.

    Shapes: link (D, D), raster_order (D,), x (D, N), shared with its owner, who writes each value into it.
    """

    def __init__(self, link: nn.Linear, raster_order: Tensor, x: Tensor) -> None:
        self.link, self.x, self.blocks = link, x, raster_order.split(BLOCK)

    def at(self, position: int) -> Tensor:
        """The output at a position, the values before it known; called at every position. Shapes: -> (N,)."""
        block, place = divmod(position, BLOCK)
        if place == 0:
            rows, here = self.link.weight[self.blocks[block]], self.blocks[block]
            scale = 1 / math.sqrt(len(self.x))
            self.base = torch.addmm(self.link.bias[here].unsqueeze(1), rows, self.x, alpha=scale)
            self.weight = rows[:, here] * scale
            self.values = self.x.new_zeros(len(here), self.x.shape[1])
            return self.base[0]
        self.values[place - 1] = self.x[self.blocks[block][place - 1]]
        return torch.addmv(self.base[place], self.values[:place].T, self.weight[place, :place])


def _units_by_degree(degrees: Tensor, num_degrees: int) -> tuple[Tensor, ...]:
    """Of each degree the units that have it."""
    return degrees.argsort(stable=True).split(torch.bincount(degrees, minlength=num_degrees).tolist())
