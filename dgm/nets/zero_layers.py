"""Layers that start at zero, so that what they add to a model before training is nothing."""

from __future__ import annotations

from torch import Tensor, nn


def bias_of(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """The bias of a layer that was made with one; torch declares that of a convolution as optional."""
    assert layer.bias is not None
    return layer.bias


def zero_layer(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Sets weight and bias to zero, in place."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(bias_of(layer))
