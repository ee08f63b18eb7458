"""Convolutions that see no later pixel because the image is shifted under them, and the gated block built from them.

Two kinds of window: "down" sees its own row and rows above, left and right alike; "down_right" sees its own row up to
its own column, and rows above up to that column. Both include their own position: the first layer's output is shifted.
Source: Salimans et al. (2017), arXiv 1701.05517, section 2.3, and Salimans & Kingma (2016), arXiv 1602.07868.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.models.pixelcnn_pp.activations import activate, dropout_mask, gated_residual

Window = Literal["down", "down_right"]
KERNELS: dict[Window, tuple[int, int]] = {"down": (2, 3), "down_right": (2, 2)}
INITIAL_DIRECTION = 0.05  # standard deviation of weight-normalised directions, as in the authors' code


def shift_down(x: Tensor) -> Tensor:
    """Every row moved down by one, zeros on top. Shapes: (N, C, H, W) unchanged."""
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def shift_right(x: Tensor) -> Tensor:
    """Every column moved right by one, zeros on the left. Shapes: (N, C, H, W) unchanged."""
    return F.pad(x, (1, 0))[..., :-1]


class DataInitialized(nn.Module):
    """A kernel and a bias that a batch of data can scale; weight-normalised: the kernel is gain times direction.

    Shapes: kernel as torch's convolutions want it, its output channels on axis `out_dim`.
    """

    def __init__(self, shape: tuple[int, ...], out_dim: int, init_scale: float, weight_norm: bool) -> None:
        super().__init__()
        num_outputs = shape[out_dim]
        self.out_dim, self.init_scale = out_dim, init_scale
        fan_in = math.prod(shape) // num_outputs
        self.weight = nn.Parameter(
            torch.randn(shape) * (INITIAL_DIRECTION if weight_norm else init_scale / fan_in**0.5)
        )
        self.gain = nn.Parameter(torch.full((num_outputs,), init_scale)) if weight_norm else None
        self.bias = nn.Parameter(torch.zeros(num_outputs))

    def kernel(self) -> Tensor:
        """What the convolution multiplies with."""
        if self.gain is None:
            return self.weight
        axes = [axis for axis in range(self.weight.ndim) if axis != self.out_dim]
        return self.weight * (
            self._along_outputs(self.gain) / torch.linalg.vector_norm(self.weight, dim=axes, keepdim=True)
        )

    @torch.no_grad()
    def initialize_from(self, inputs: tuple[Tensor, ...]) -> None:
        """Scales kernel and bias so that each channel of this batch's output has mean 0 and deviation `init_scale`.

        A forward pre-hook; hence forward and not a call, which would run the hook again.
        """
        y = self.forward(*inputs)
        deviation = y.std(dim=(0, 2, 3))
        factor = torch.where(deviation > 1e-3, self.init_scale / deviation, 1.0)  # 1: a channel that sees no pixel yet
        self.bias.copy_((self.bias - y.mean(dim=(0, 2, 3))) * factor)
        if self.gain is None:
            self.weight.mul_(self._along_outputs(factor))
        else:
            self.gain.mul_(factor)

    def _along_outputs(self, per_output: Tensor) -> Tensor:
        return per_output.view([-1 if axis == self.out_dim else 1 for axis in range(self.weight.ndim)])


class ShiftedConv2d(DataInitialized):
    """Convolution over a causal window. Shapes: (N, in, H, W) -> (N, out, H / stride, W / stride)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        window: Window,
        kernel_size: tuple[int, int] | None = None,
        stride: int = 1,
        init_scale: float = 1.0,
        weight_norm: bool = True,
    ) -> None:
        rows, columns = kernel_size or KERNELS[window]
        super().__init__((out_channels, in_channels, rows, columns), 0, init_scale, weight_norm)
        self.stride = stride
        self.padding = (rows - 1, (columns - 1) // 2 if window == "down" else columns - 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] // self.stride, x.shape[3] // self.stride
        y = F.conv2d(x, self.kernel(), self.bias, stride=self.stride, padding=self.padding)
        return y[:, :, :height, :width]


class ShiftedConvTranspose2d(DataInitialized):
    """Doubles both sides; no output sees an input outside its window. Shapes: (N, in, H, W) -> (N, out, 2 H, 2 W)."""

    def __init__(self, in_channels: int, out_channels: int, window: Window, weight_norm: bool = True) -> None:
        rows, columns = KERNELS[window]
        super().__init__((in_channels, out_channels, rows, columns), 1, 1.0, weight_norm)
        self.first_column = (columns - 1) // 2 if window == "down" else 0

    def forward(self, x: Tensor) -> Tensor:
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        y = F.conv_transpose2d(x, self.kernel(), self.bias, stride=2)
        return y[:, :, :height, self.first_column : self.first_column + width]


class PointwiseConv2d(DataInitialized):
    """The same linear map at every position. Shapes: (N, in, H, W) -> (N, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, init_scale: float = 1.0, weight_norm: bool = True) -> None:
        super().__init__((out_channels, in_channels, 1, 1), 0, init_scale, weight_norm)

    def forward(self, activated: Tensor, other: Tensor | None = None) -> Tensor:
        """With `other`, the inputs are the concatenated ELU of two maps side by side, given as that of each.

        Shapes: both (N, in / 2, H, W).
        """
        weight = self.kernel().flatten(1)
        rows = activated.permute(0, 2, 3, 1)
        if other is None:
            return F.linear(rows, weight, self.bias).permute(0, 3, 1, 2)
        of_first, of_other = weight.unflatten(1, (2, 2, -1)).unbind(2)  # each (out, sign, features)
        y = F.linear(rows, of_first.flatten(1), self.bias)
        other_rows = other.permute(0, 2, 3, 1).flatten(0, 2)
        y = torch.addmm(y.flatten(0, 2), other_rows, of_other.flatten(1).T).view_as(y)
        return y.permute(0, 3, 1, 2)


class GatedResnet(nn.Module):
    """x + a * sigmoid(b), with a and b from two convolutions; other maps enter between them.

    Shapes: x (N, features, H, W); the concatenated ELU of x, and of up to two other maps, each (N, 2 features, H, W) ->
    (N, features, H, W). num_linked: how many other maps there are.
    """

    def __init__(self, features: int, window: Window, num_linked: int, dropout: float, weight_norm: bool) -> None:
        super().__init__()
        num_inputs = 2 * features * num_linked
        self.entry = ShiftedConv2d(2 * features, features, window, weight_norm=weight_norm)
        self.link = PointwiseConv2d(num_inputs, features, weight_norm=weight_norm) if num_linked else None
        self.dropout = dropout
        self.exit = ShiftedConv2d(2 * features, 2 * features, window, init_scale=0.1, weight_norm=weight_norm)

    def forward(self, x: Tensor, activated: Tensor, *linked: Tensor) -> Tensor:
        y = self.entry(activated)
        mask = dropout_mask(activated.shape, self.dropout, like=y) if self.training and self.dropout else None
        link = None if self.link is None else self.link(*linked)
        return gated_residual(x, self.exit(activate(y, link, mask)))
