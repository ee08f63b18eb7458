"""PixelCNN: published size, field of view; more in test_pixel_softmax.py. The contract tests do the rest."""

from __future__ import annotations

import pytest
import torch

from dgm.models.pixelcnn import PixelCNN, PixelCNNConfig
from dgm.types import CIFAR10
from tests.tiny import PLAIN


def test_published_size_has_5_34_million_parameters() -> None:
    model = PixelCNN(CIFAR10, PixelCNNConfig(num_features=128, num_blocks=15, num_head_features=1024, **PLAIN))
    assert model.num_parameters() == 5_340_416


@pytest.mark.parametrize(("row", "column", "num_visible"), [(16, 0, 184), (16, 16, 450), (16, 31, 322), (31, 16, 514)])
def test_field_of_view_of_fifteen_layers(row: int, column: int, num_visible: int) -> None:
    """The 7x7 field and the blind wedge to the upper right, counted in pixels."""
    torch.manual_seed(0)
    model = PixelCNN(CIFAR10, PixelCNNConfig(num_features=3, num_blocks=15, num_head_features=3, **PLAIN))
    with torch.no_grad():  # positive weights and inputs: no ReLU can hide a path
        for parameter in model.parameters():
            parameter.fill_(0.1)
        model.stem.weight.mul_(0.1)
    x = torch.ones(1, 3, 32, 32, requires_grad=True)
    features = model.stem(x)
    for block in model.blocks:
        features = block(features)
    features[0, 2, row, column].log().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0) > 0
    seen[row, column] = False
    assert int(seen.sum()) == num_visible
