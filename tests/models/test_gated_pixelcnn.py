"""Gated PixelCNN: size, field of view, causality, normalisation, cached against recomputed conditionals."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from dgm.model_api.ancestral import RecomputedConditionals
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


def test_no_output_moves_with_its_own_or_a_later_subpixel() -> None:
    spec = ImageSpec(3, 4, 5, 4)
    model = randomized(spec)
    order = model.order()
    images = random_images(1, spec)
    before = model.log_pmf(images).detach().flatten(1, 3)[:, order]
    num_moved = 0
    for t, index in enumerate(order.tolist()):
        changed = images.clone().flatten(1)
        changed[:, index] = (changed[:, index] + 1) % spec.levels
        after = model.log_pmf(changed.view_as(images)).detach().flatten(1, 3)[:, order]
        assert torch.allclose(before[:, : t + 1], after[:, : t + 1], rtol=0, atol=1e-12)
        num_moved += int((before[:, t + 1 :] - after[:, t + 1 :]).abs().sum(-1).gt(1e-9).sum())
    assert num_moved > 500  # of 1770 pairs, of which the blind wedge hides some


def test_probabilities_of_all_images_sum_to_one() -> None:
    spec = ImageSpec(3, 1, 2, 3)
    images = torch.tensor(list(itertools.product(range(3), repeat=6)), dtype=torch.uint8).view(-1, 3, 1, 2)
    assert float(randomized(spec).log_prob(images).detach().exp().sum()) == pytest.approx(1, abs=1e-9)


def test_log_prob_is_the_sum_of_the_conditionals_and_ignores_other_images() -> None:
    spec = ImageSpec(3, 4, 5, 4)
    model, images = randomized(spec), random_images(3, spec)
    log_pmf = model.log_pmf(images)
    picked = log_pmf.gather(-1, images.long().unsqueeze(-1)).flatten(1).sum(1)
    assert torch.allclose(model.log_prob(images), picked, rtol=0, atol=1e-9)
    assert torch.allclose(model.log_prob(images[1:2]), picked[1:2], rtol=0, atol=1e-9)
    assert picked.std() > 0.1


@pytest.mark.parametrize("spec", [ImageSpec(3, 4, 5, 4), ImageSpec(1, 3, 3, 2)])
def test_cached_conditionals_equal_recomputed(spec: ImageSpec) -> None:
    model, images = randomized(spec), random_images(2, spec)
    cached, naive = model.conditionals(2), RecomputedConditionals(model, 2)
    for index in model.order().tolist():
        assert torch.allclose(cached.log_pmf(), naive.log_pmf(), rtol=0, atol=1e-9)
        values = images.flatten(1)[:, index].long()
        cached.push(values)
        naive.push(values)


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
