"""The network of a diffusion model's reverse trajectory: what it sees of an image, and how a step reads its output.

Source: Sohl-Dickstein, Weiss, Maheswaranathan & Ganguli (2015), arXiv 1503.03585, appendix D.2; sizes and the leaky
rectifier: the authors' code.
Differs: one scale instead of several (the authors' code does so for CIFAR-10); places of block x block pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.nets.layer_list import LayerList
from dgm.nets.zero_layers import bias_of, zero_layer
from dgm.types import ImageSpec

LEAK = 0.05


class ReverseNetworkConfig(Config):
    """block: side of the squares of pixels that are one place of the network, 1 in the paper.

    num_dense_features: of each hidden layer of the dense stack, 0 for no such stack; num_dense_outputs: of each place.
    num_bumps: temporal bump functions, which weigh as many outputs of each sub-pixel.
    """

    block: int = Field(ge=1)
    num_conv_layers: int = Field(ge=1)
    num_conv_features: int = Field(ge=1)
    num_dense_layers: int = Field(ge=1)
    num_dense_features: int = Field(ge=0)
    num_dense_outputs: int = Field(ge=1)
    num_head_layers: int = Field(ge=0)
    num_head_features: int = Field(ge=1)
    num_bumps: int = Field(ge=2)


def temporal_bumps(num_steps: int, num_bumps: int) -> Tensor:
    """Weight of each bump at each step; the weights of a step sum to 1. Shapes: -> (steps, bumps) float64.

    Gaussians at equal distances over the trajectory, with half that distance as standard deviation.
    """
    centres = torch.linspace(-1, 1, num_bumps, dtype=torch.float64)
    times = torch.linspace(-1, 1, num_steps, dtype=torch.float64)
    width = (centres[1] - centres[0]) / 2
    return torch.softmax(-((times[:, None] - centres) ** 2) / (2 * width**2), dim=1)


class ReverseNetwork(nn.Module):
    """Convolutions in parallel with a dense stack, then 1 x 1 convolutions. Its output is zero at first.

    Raises: ValueError if the blocks do not tile the image.
    """

    def __init__(self, spec: ImageSpec, in_channels: int, out_channels: int, config: ReverseNetworkConfig) -> None:
        super().__init__()
        block, num_dense = config.block, config.num_dense_features
        if spec.height % block or spec.width % block:
            raise ValueError(f"blocks of {block} x {block} do not tile {spec.height} x {spec.width}")
        self.block, self.num_bumps = block, config.num_bumps
        self.grid = (spec.height // block, spec.width // block)
        places = self.grid[0] * self.grid[1]
        sizes = [in_channels * block**2] + [config.num_conv_features] * config.num_conv_layers
        self.convolutions = LayerList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))
        self.dense: LayerList[nn.Linear] = LayerList()
        if num_dense:
            sizes = [in_channels * spec.num_pixels] + [num_dense] * config.num_dense_layers
            sizes += [config.num_dense_outputs * places]
            self.dense.extend(nn.Linear(a, b) for a, b in pairwise(sizes))
        sizes = [config.num_conv_features + (config.num_dense_outputs if num_dense else 0)]
        sizes += [config.num_head_features] * config.num_head_layers
        self.pointwise = LayerList(nn.Conv2d(a, b, 1) for a, b in pairwise(sizes))
        self.head = nn.Conv2d(sizes[-1], config.num_bumps * out_channels * block**2, 1)
        _keep_variance([*self.convolutions, *self.dense, *self.pointwise])
        zero_layer(self.head)

    def forward(self, x: Tensor, bumps: Tensor) -> Tensor:
        """Shapes: (N, in channels, H, W), weights of the images' steps (N, bumps) -> (N, out channels, H, W)."""
        h = F.pixel_unshuffle(x, self.block)
        for layer in self.convolutions:
            h = F.leaky_relu(layer(h), LEAK)
        if len(self.dense):
            d = x.flatten(1)
            for layer in self.dense:
                d = F.leaky_relu(layer(d), LEAK)
            h = torch.cat([h, d.view(len(x), -1, *self.grid)], dim=1)
        for layer in self.pointwise:
            h = F.leaky_relu(layer(h), LEAK)
        outputs = self.head(h).unflatten(1, (self.num_bumps, -1))
        return F.pixel_shuffle(torch.einsum("nj,njchw->nchw", bumps.to(outputs), outputs), self.block)


def _keep_variance(layers: Iterable[nn.Conv2d | nn.Linear]) -> None:
    """Weights under which a layer's output varies as much as its input."""
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, a=LEAK, nonlinearity="leaky_relu")
        nn.init.zeros_(bias_of(layer))
