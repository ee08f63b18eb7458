"""Convolutions that see no later pixel because the image is shifted under them, and the gated block built from them.

Two kinds of window: "down" sees its own row and rows above, left and right alike; "down_right" sees its own row up to
its own column, and rows above up to that column. Both include their own position: the first layer's output is shifted.
Source: Salimans et al. (2017), arXiv 1701.05517, section 2.3, and Salimans & Kingma (2016), arXiv 1602.07868.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Window = Literal["down", "down_right"]
KERNELS: dict[Window, tuple[int, int]] = {"down": (2, 3), "down_right": (2, 2)}
INITIAL_WEIGHT_STD = 0.05


def shift_down(x: Tensor) -> Tensor:
    """Every row moved down by one, zeros on top. Shapes: (N, C, H, W) unchanged."""
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def shift_right(x: Tensor) -> Tensor:
    """Every column moved right by one, zeros on the left. Shapes: (N, C, H, W) unchanged."""
    return F.pad(x, (1, 0))[..., :-1]


def concat_elu(x: Tensor, dim: int = 1) -> Tensor:
    """ELU of x and of -x, side by side. Shapes: (N, C, ...) -> (N, 2 C, ...)."""
    return F.elu(torch.cat([x, -x], dim=dim))


class WeightNormalized(nn.Module):
    """A kernel written as gain times direction, with a bias, and its data-dependent initialisation.

    Shapes: kernel as torch's convolutions want it, output channels on axis `out_dim`.
    """

    def __init__(self, shape: tuple[int, ...], out_dim: int, init_scale: float) -> None:
        super().__init__()
        self.out_dim, self.init_scale = out_dim, init_scale
        self.direction = nn.Parameter(torch.randn(shape) * INITIAL_WEIGHT_STD)
        self.gain = nn.Parameter(torch.full((shape[out_dim],), init_scale))
        self.bias = nn.Parameter(torch.zeros(shape[out_dim]))

    def kernel(self) -> Tensor:
        """The weight that the convolution uses."""
        axes = [axis for axis in range(self.direction.ndim) if axis != self.out_dim]
        shape = [-1 if axis == self.out_dim else 1 for axis in range(self.direction.ndim)]
        return self.direction * (
            self.gain.view(shape) / torch.linalg.vector_norm(self.direction, dim=axes, keepdim=True)
        )

    @torch.no_grad()
    def initialize_from(self, inputs: tuple[Tensor]) -> None:
        """Sets gain and bias so that the outputs of this batch have mean 0 and deviation `init_scale` a channel.

        A forward pre-hook; hence forward and not a call, which would run the hook again.
        """
        y = self.forward(*inputs)
        mean, std = y.mean(dim=(0, 2, 3)), y.std(dim=(0, 2, 3))
        factor = self.init_scale / (std + 1e-8)
        self.gain.mul_(factor)
        self.bias.copy_((self.bias - mean) * factor)


class ShiftedConv2d(WeightNormalized):
    """Convolution over a causal window. Shapes: (N, in, H, W) -> (N, out, H / stride, W / stride)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        window: Window,
        kernel_size: tuple[int, int] | None = None,
        stride: int = 1,
        init_scale: float = 1.0,
    ) -> None:
        rows, columns = kernel_size or KERNELS[window]
        super().__init__((out_channels, in_channels, rows, columns), 0, init_scale)
        self.stride = stride
        self.padding = (rows - 1, (columns - 1) // 2 if window == "down" else columns - 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] // self.stride, x.shape[3] // self.stride
        y = F.conv2d(x, self.kernel(), self.bias, stride=self.stride, padding=self.padding)
        return y[:, :, :height, :width]


class ShiftedConvTranspose2d(WeightNormalized):
    """Doubles both sides; no output sees an input outside its window. Shapes: (N, in, H, W) -> (N, out, 2 H, 2 W)."""

    def __init__(self, in_channels: int, out_channels: int, window: Window) -> None:
        rows, columns = KERNELS[window]
        super().__init__((in_channels, out_channels, rows, columns), 1, 1.0)
        self.first_column = (columns - 1) // 2 if window == "down" else 0

    def forward(self, x: Tensor) -> Tensor:
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        y = F.conv_transpose2d(x, self.kernel(), self.bias, stride=2)
        return y[:, :, :height, self.first_column : self.first_column + width]


class PointwiseConv2d(WeightNormalized):
    """The same linear map at every position. Shapes: (N, in, H, W) -> (N, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, init_scale: float = 1.0) -> None:
        super().__init__((out_channels, in_channels, 1, 1), 0, init_scale)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel(), self.bias)


class GatedResnet(nn.Module):
    """x + a * sigmoid(b), with a and b from two convolutions; a second input enters between them.

    Shapes: x (N, features, H, W), auxiliary (N, aux_features, H, W) -> (N, features, H, W).
    """

    def __init__(self, features: int, window: Window, aux_features: int, dropout: float) -> None:
        super().__init__()
        self.entry = ShiftedConv2d(2 * features, features, window)
        self.link = PointwiseConv2d(2 * aux_features, features) if aux_features else None
        self.dropout = nn.Dropout(dropout)
        self.exit = ShiftedConv2d(2 * features, 2 * features, window, init_scale=0.1)

    def forward(self, x: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        y = self.entry(concat_elu(x))
        if self.link is not None and auxiliary is not None:
            y = y + self.link(concat_elu(auxiliary))
        value, gate = self.exit(self.dropout(concat_elu(y))).chunk(2, dim=1)
        return x + value * torch.sigmoid(gate)
