"""Residual convolutions from pixels down to a coarse grid and back up; no normalisation couples images or places."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dgm.nets.zero_layers import zero_layer


class ResidualBlock(nn.Module):
    """x + convolutions of x, the identity at first. Shapes: (N, K, H, W) unchanged.

    Source: He et al. (2016), arXiv 1603.05027, figure 1b. Differs: no batch norm; SiLU.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(num_features, num_features, 3, padding=1)
        self.second = nn.Conv2d(num_features, num_features, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class DownwardPyramid(nn.Module):
    """Features of the coarsest grid. Shapes: (N, C, H, W) -> (N, features[-1], H / stride, W / stride).

    The first convolution has stride `stem_stride`; each further level halves the grid.
    """

    def __init__(self, num_channels: int, features: Sequence[int], stem_stride: int, num_blocks: int) -> None:
        super().__init__()
        self.stride = total_stride(features, stem_stride)
        layers: list[nn.Module] = [nn.Conv2d(num_channels, features[0], stem_stride + 2, stem_stride, padding=1)]
        for level, num_features in enumerate(features):
            if level > 0:
                layers.append(nn.Conv2d(features[level - 1], num_features, 4, 2, padding=1))
            layers += [ResidualBlock(num_features) for _ in range(num_blocks)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class UpwardPyramid(nn.Module):
    """The mirror image, zero at first. Shapes: (N, features[-1], h, w) -> (N, num_outputs, h * stride, w * stride)."""

    def __init__(self, num_outputs: int, features: Sequence[int], stem_stride: int, num_blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level in reversed(range(len(features))):
            layers += [ResidualBlock(features[level]) for _ in range(num_blocks)]
            if level > 0:
                layers += [nn.Conv2d(features[level], 4 * features[level - 1], 3, padding=1), nn.PixelShuffle(2)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(features[0], num_outputs * stem_stride**2, 3, padding=1)
        zero_layer(self.head)
        self.shuffle = nn.PixelShuffle(stem_stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.head(F.silu(self.layers(x))))


def total_stride(features: Sequence[int], stem_stride: int) -> int:
    """Pixels along a side of one place of the coarsest grid."""
    return stem_stride * 2 ** (len(features) - 1)
