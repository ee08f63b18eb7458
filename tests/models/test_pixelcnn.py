"""PixelCNN: published size, start, field of view, learning, half precision. The contract tests do the rest."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dgm.models.pixelcnn import PixelCNN, PixelCNNConfig
from dgm.types import CIFAR10, ImageSpec

TINY = PixelCNNConfig(num_features=5, num_blocks=2, num_head_features=7)


def randomized(spec: ImageSpec, config: PixelCNNConfig = TINY) -> PixelCNN:
    """A float64 model whose logits are not constant: the zero weights are drawn too."""
    torch.manual_seed(0)
    model = PixelCNN(spec, config).double()
    for parameter in model.parameters():
        if parameter.ndim < 2 or not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def random_images(num_images: int, spec: ImageSpec) -> Tensor:
    shape = (num_images, *spec.shape)
    return torch.randint(0, spec.levels, shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def test_published_size_has_5_34_million_parameters() -> None:
    model = PixelCNN(CIFAR10, PixelCNNConfig(num_features=128, num_blocks=15, num_head_features=1024))
    assert model.num_parameters() == 5_340_416


def test_untrained_is_exactly_uniform() -> None:
    model = PixelCNN(CIFAR10, TINY)
    nats = model.log_prob(random_images(2, CIFAR10))
    assert torch.allclose(nats, torch.full((2,), -3072 * math.log(256), dtype=torch.float64), rtol=1e-7, atol=0)


@pytest.mark.parametrize(("row", "column", "num_visible"), [(16, 0, 184), (16, 16, 450), (16, 31, 322), (31, 16, 514)])
def test_field_of_view_of_fifteen_layers(row: int, column: int, num_visible: int) -> None:
    """The 7x7 field and the blind wedge to the upper right, counted in pixels."""
    torch.manual_seed(0)
    model = PixelCNN(CIFAR10, PixelCNNConfig(num_features=3, num_blocks=15, num_head_features=3))
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


def test_learns_one_image() -> None:
    spec = ImageSpec(3, 4, 4, 4)
    torch.manual_seed(0)
    model, images = PixelCNN(spec, TINY), random_images(1, spec)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    for _ in range(50):
        nats_per_image = model.objective(images, torch.Generator(), 0.0).loss.mean()
        optimizer.zero_grad()
        nats_per_image.backward()
        optimizer.step()
    assert float(model.log_prob(images).detach()) > -0.5 * 48 * math.log(4)


def test_autocast_loses_little() -> None:
    spec = ImageSpec(3, 4, 4, 4)
    model, images = randomized(spec).float(), random_images(3, spec)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nats = model.log_prob(images)
    assert nats.dtype == torch.float64
    assert torch.allclose(nats, model.log_prob(images), rtol=0.02, atol=0)
