"""Gated PixelCNN: size, gate, start, field of view, learning, half precision. The contract tests do the rest."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dgm.models.gated_pixelcnn import GatedPixelCNN, GatedPixelCNNConfig, gate
from dgm.types import CIFAR10, ImageSpec

TINY = GatedPixelCNNConfig(num_features=5, num_layers=2, kernel_size=3, num_head_features=7)


def randomized(spec: ImageSpec, config: GatedPixelCNNConfig = TINY) -> GatedPixelCNN:
    """A float64 model whose logits are not constant: the zero weights are drawn too."""
    torch.manual_seed(0)
    model = GatedPixelCNN(spec, config).double()
    for parameter in model.parameters():
        if parameter.ndim < 2 or not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def random_images(num_images: int, spec: ImageSpec) -> Tensor:
    shape = (num_images, *spec.shape)
    return torch.randint(0, spec.levels, shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def test_full_size_has_13_4_million_parameters() -> None:
    config = GatedPixelCNNConfig(num_features=128, num_layers=15, kernel_size=5, num_head_features=1024)
    assert GatedPixelCNN(CIFAR10, config).num_parameters() == 13_415_424


def test_gate_is_tanh_times_sigmoid() -> None:
    x = torch.tensor([[0.5, 2.0, math.log(3.0), 0.0]])  # sigmoid(log 3) = 3/4
    assert torch.allclose(gate(x), torch.tensor([[0.75 * math.tanh(0.5), 0.5 * math.tanh(2.0)]]))


def test_untrained_is_exactly_uniform() -> None:
    model = GatedPixelCNN(CIFAR10, TINY)
    nats = model.log_prob(random_images(2, CIFAR10))
    assert torch.allclose(nats, torch.full((2,), -3072 * math.log(256), dtype=torch.float64), rtol=1e-7, atol=0)


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
    config = GatedPixelCNNConfig(num_features=3, num_layers=15, kernel_size=kernel_size, num_head_features=3)
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


def test_learns_one_image() -> None:
    spec = ImageSpec(3, 4, 4, 4)
    torch.manual_seed(0)
    model, images = GatedPixelCNN(spec, TINY), random_images(1, spec)
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
