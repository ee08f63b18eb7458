"""Gated PixelCNN: size, gate, field of view; more in test_pixel_softmax.py. The contract tests do the rest."""

from __future__ import annotations

import math

import pytest
import torch

from dgm.models.gated_pixelcnn import GatedPixelCNN, GatedPixelCNNConfig, gate
from dgm.types import CIFAR10
from tests.tiny import PLAIN


def test_full_size_has_13_4_million_parameters() -> None:
    config = GatedPixelCNNConfig(num_features=128, num_layers=15, kernel_size=5, num_head_features=1024, **PLAIN)
    assert GatedPixelCNN(CIFAR10, config).num_parameters() == 13_415_424


def test_gate_is_tanh_times_sigmoid() -> None:
    x = torch.tensor([[0.5, 2.0, math.log(3.0), 0.0]])  # sigmoid(log 3) = 3/4
    assert torch.allclose(gate(x), torch.tensor([[0.75 * math.tanh(0.5), 0.5 * math.tanh(2.0)]]))


@pytest.mark.parametrize(
    ("kernel_size", "row", "column", "num_visible"),
    [
        (3, 16, 0, 304),
        (3, 16, 16, 528),
        (3, 16, 31, 322),
        (3, 31, 16, 624),
        (5, 16, 0, 512),
        (5, 16, 31, 543),
        (5, 31, 16, 1008),
    ],
)
def test_field_of_view_of_fifteen_layers(kernel_size: int, row: int, column: int, num_visible: int) -> None:
    """No blind spot: with 3x3 kernels only the reach ends, with 5x5 all earlier pixels are seen."""
    config = GatedPixelCNNConfig(num_features=3, num_layers=15, kernel_size=kernel_size, num_head_features=3, **PLAIN)
    model = GatedPixelCNN(CIFAR10, config).double()
    with torch.no_grad():  # positive and small: no gate is saturated, no path cancels
        for parameter in model.parameters():
            parameter.fill_(0.05)
    x = torch.ones(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    model.features(x)[0, 2, row, column].backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0) > 0
    seen[row, column] = False
    assert int(seen.sum()) == num_visible
