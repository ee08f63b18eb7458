"""A masked convolution one pixel and one degree at a time, from cached rows: what ancestral sampling needs.

Features are kept sorted by degree, so that the features of one degree are one slice. Rows above the current one are
convolved once per row; a step is then one small matrix product over the taps of the current row.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.nets.masked_conv import MaskedConv2d
from dgm.types import ImageSpec


def degree_slices(degrees: Tensor, spec: ImageSpec) -> list[slice]:
    """Where the features of each degree lie once sorted by degree."""
    ends = [0, *torch.bincount(degrees, minlength=spec.channels).cumsum(0).tolist()]
    return [slice(start, end) for start, end in pairwise(ends)]


class CachedConv:
    """Incremental form of one MaskedConv2d for `num_images` images.

    The owner calls `start_row`, then for each pixel and degree writes its input into `slot(column, degree)` and reads
    `step(column, degree)`. Inputs and outputs are sorted by degree (stable).
    Shapes: slot (N, inputs of the degree); step -> (N, outputs of the degree).
    """

    def __init__(
        self, conv: MaskedConv2d, in_degrees: Tensor, out_degrees: Tensor, num_images: int, spec: ImageSpec
    ) -> None:
        in_order, out_order = in_degrees.argsort(stable=True), out_degrees.argsort(stable=True)
        self.in_slices, self.out_slices = degree_slices(in_degrees, spec), degree_slices(out_degrees, spec)
        weight = conv.masked_weight().detach()
        weight = weight[out_order.to(weight.device)][:, in_order.to(weight.device)]
        self.bias = conv.bias.detach()[out_order.to(weight.device)]
        self.left, self.right, self.width = conv.left, conv.right, spec.width
        self.above_weight = weight[:, :, : conv.top]
        current = weight[:, :, -1, : conv.left + 1].permute(2, 1, 0).flatten(0, 1)  # (taps * inputs, outputs)
        self.weights = [current[:, outputs].contiguous() for outputs in self.out_slices]
        self.rows = weight.new_zeros(num_images, conv.top + 1, spec.width + conv.left + conv.right, len(in_degrees))
        self.current = self.rows[:, -1]
        self.windows = [self.current[:, c : c + conv.left + 1].flatten(1) for c in range(spec.width)]
        self.base: list[list[Tensor]] = []  # per degree and column: the bias and what rows above contribute

    def start_row(self, extra: Tensor | None = None) -> None:
        """Moves one row down. Shapes: extra (N, W, outputs), added to this row's outputs."""
        contribution = self.bias.expand(len(self.rows), self.width, -1)
        if above := self.above_weight.shape[2]:
            self.rows[:, :-1] = self.rows[:, 1:].clone()
            maps = F.conv2d(self.rows[:, :above].permute(0, 3, 1, 2), self.above_weight)
            contribution = contribution + maps[:, :, 0].transpose(1, 2)
        if extra is not None:
            contribution = contribution + extra
        self.base = [list(contribution[:, :, outputs].unbind(1)) for outputs in self.out_slices]

    def slot(self, column: int, degree: int) -> Tensor:
        """Where the inputs of one degree at one pixel of the current row go."""
        return self.current[:, self.left + column, self.in_slices[degree]]

    def step(self, column: int, degree: int) -> Tensor:
        """The outputs of one degree; inputs up to that degree (mask A: below it) have been written."""
        return torch.addmm(self.base[degree][column], self.windows[column], self.weights[degree])


class CachedPointwise:
    """Incremental form of a masked 1x1 convolution: no rows, one pixel's features overwritten by the next's.

    Shapes: slots[degree] (N, inputs of the degree); step -> (N, outputs of the degree).
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, in_degrees: Tensor, out_degrees: Tensor, num_images: int, spec: ImageSpec
    ) -> None:
        in_order, out_order = in_degrees.argsort(stable=True), out_degrees.argsort(stable=True)
        in_slices, out_slices = degree_slices(in_degrees, spec), degree_slices(out_degrees, spec)
        weight = weight.detach()[out_order.to(weight.device)][:, in_order.to(weight.device)].T
        bias = bias.detach()[out_order.to(bias.device)]
        pixel = weight.new_zeros(num_images, len(in_degrees))
        self.slots = [pixel[:, inputs] for inputs in in_slices]
        self.visible = [pixel[:, : inputs.stop] for inputs in in_slices]
        self.weights = [weight[: i.stop, o].contiguous() for i, o in zip(in_slices, out_slices, strict=True)]
        self.biases = [bias[outputs] for outputs in out_slices]

    def step(self, degree: int) -> Tensor:
        """The outputs of one degree; inputs up to that degree have been written."""
        return torch.addmm(self.biases[degree], self.visible[degree], self.weights[degree])
