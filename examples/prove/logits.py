"""A PixelCNN in fifteen lines of plain PyTorch, and what `dgm prove` needs to know of it.

dgm prove examples/prove/logits.py:pixelcnn --weights pixelcnn.pt
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from dgm.prove import Logits
from dgm.types import CIFAR10, ImageSpec


class CausalConv(nn.Conv2d):
    """Sees the rows above and the pixels to the left; the pixel itself only if `sees_itself`."""

    mask: Tensor

    def __init__(self, num_inputs: int, num_outputs: int, kernel_size: int, sees_itself: bool) -> None:
        super().__init__(num_inputs, num_outputs, kernel_size, padding=kernel_size // 2)
        mask = torch.ones(kernel_size, kernel_size)
        mask[kernel_size // 2, kernel_size // 2 + sees_itself :] = 0
        mask[kernel_size // 2 + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.conv2d(input, self.weight * self.mask, self.bias, padding=self.padding)


class PixelCNN(nn.Module):
    """Logits (N, C * levels, H, W); the channels of a pixel do not see each other."""

    def __init__(self, spec: ImageSpec = CIFAR10, num_features: int = 32, num_layers: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [CausalConv(spec.channels, num_features, 7, sees_itself=False)]
        for _ in range(num_layers):
            layers += [nn.ReLU(), CausalConv(num_features, num_features, 3, sees_itself=True)]
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(num_features, spec.channels * spec.levels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def pixelcnn(weights: Path) -> Logits:
    """What `dgm prove` calls: it is given the path after --weights."""
    network = PixelCNN()
    network.load_state_dict(torch.load(weights, weights_only=True))
    return Logits(network, inputs="symmetric")  # the network reads [-1, 1]
