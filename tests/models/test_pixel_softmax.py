"""What the networks with one softmax per sub-pixel have in common: a uniform start, learning, half precision."""

from __future__ import annotations

import math

import pytest
import torch

from dgm.model_api.contracts import TrainedAutoregressiveModel
from dgm.types import CIFAR10, ImageSpec
from tests.tiny import PLAIN, random_images, untrained_model

SPEC = ImageSpec(3, 4, 4, 4)
CONVOLUTIONS = ("pixelcnn", "gated_pixelcnn")


def untrained(name: str, spec: ImageSpec) -> TrainedAutoregressiveModel:
    model = untrained_model(name, spec, changes=PLAIN)
    assert isinstance(model, TrainedAutoregressiveModel)
    return model


@pytest.mark.parametrize("name", [*CONVOLUTIONS, "row_lstm", "diagonal_bilstm"])
def test_untrained_is_exactly_uniform(name: str) -> None:
    nats = untrained(name, CIFAR10).log_prob(random_images(CIFAR10, 2))
    assert torch.allclose(nats, torch.full((2,), -3072 * math.log(256), dtype=torch.float64), rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_learns_one_image(name: str) -> None:
    model, images = untrained(name, SPEC), random_images(SPEC, 1, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    for _ in range(50):
        nats_per_image = model.objective(images, torch.Generator(), 0.0).loss.mean()
        optimizer.zero_grad()
        nats_per_image.backward()
        optimizer.step()
    assert float(model.log_prob(images).detach()) > -0.5 * 48 * math.log(4)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_autocast_loses_little(name: str) -> None:
    model, images = untrained(name, SPEC), random_images(SPEC, 3, seed=1)
    for parameter in model.parameters():
        if parameter.ndim < 2 or not parameter.any():  # else the logits are constant
            torch.nn.init.normal_(parameter, std=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nats = model.log_prob(images)
    assert nats.dtype == torch.float64
    assert torch.allclose(nats, model.log_prob(images), rtol=0.02, atol=0)
