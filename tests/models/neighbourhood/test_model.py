"""The neighbourhood network: what it reads, where it starts, what a step learns from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgm.config.params import load_params
from dgm.config.parse import parse
from dgm.models.neighbourhood.model import Neighbourhood, NeighbourhoodConfig
from dgm.nets.local_prediction import causal_offsets
from dgm.seeds import generator_for
from dgm.settings import build_model
from dgm.types import CIFAR10, ImageSpec
from tests.tiny import SMALL, TINY_MODELS, random_images, tiny_model, untrained_model

WIDE = ImageSpec(channels=3, height=6, width=14, levels=4)


def tiny(spec: ImageSpec = SMALL) -> Neighbourhood:
    model = tiny_model("neighbourhood", spec)
    assert isinstance(model, Neighbourhood)
    return model


def at_the_start(spec: ImageSpec = SMALL) -> Neighbourhood:
    """Prepared, the weights as they were made."""
    model = untrained_model("neighbourhood", spec)
    assert isinstance(model, Neighbourhood)
    model.prepare(random_images(spec, 64), generator_for(0))
    return model.double()


def test_number_of_parameters() -> None:
    """Network: 156 inputs, gated layers of 128, 80 outputs, a linear map of 72 neighbours to 24 means."""
    network = 2 * 128 * (156 + 1) + 2 * 2 * 128 * (128 + 1) + 80 * (128 + 1) + 24 * 72
    prediction = 3 * (24 * 4 + 1) + 24 * 2 + 1 + 3
    assert build_model(load_params(), "neighbourhood", "cpu", CIFAR10).num_parameters() == network + prediction


def test_residuals_further_away_than_the_neighbours_are_refused() -> None:
    config = parse(NeighbourhoodConfig, {**TINY_MODELS["neighbourhood"], "residual_radius": 3}, "")
    with pytest.raises(ValueError, match="residual_radius 3 is above radius 2"):
        Neighbourhood(SMALL, config)


def test_a_step_that_drew_every_pixel_once_would_see_the_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its gradient: what is drawn is an estimate without bias."""
    spec = ImageSpec(channels=3, height=1, width=3, levels=4)
    model, images = tiny(spec), random_images(spec, 5, seed=1)
    monkeypatch.setattr(torch, "randint", lambda high, shape, **_: torch.arange(high).expand(shape))
    objective = model.objective(images, generator_for(0), 0.5)
    nats = model.log_prob(images)
    torch.testing.assert_close(objective.nats, nats.detach(), rtol=0, atol=1e-8)
    weights = list(model.parameters())
    estimated = torch.autograd.grad(objective.loss.sum(), weights)
    exact = torch.autograd.grad(-nats.sum(), weights)
    for one, other in zip(estimated, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_each_step_draws_its_own_pixels() -> None:
    model, images = tiny(), random_images(SMALL, 4)
    nats = [model.objective(images, generator_for(seed), 0.5).nats for seed in (0, 0, 1)]
    assert torch.equal(nats[0], nats[1]) and not torch.equal(nats[0], nats[2])


def test_it_starts_at_the_linear_prediction() -> None:
    """Without the head's small random weights the means are those of the regression, channel after channel."""
    model = at_the_start()
    torch.nn.init.zeros_(model.net.head.weight)
    images = random_images(SMALL, 2, seed=3)
    pixels = model._all_pixels(images)
    mixture = model.mixture_of(pixels).mixture()
    x = pixels.x.T
    residual = (pixels.x - pixels.prediction).T
    for channel in range(3):
        expected = pixels.prediction[channel] + residual[:, :channel] @ model.local.coefficients[channel, :channel]
        mean = mixture.conditional_mean(channel, x[:, :channel].unsqueeze(-1)) if channel else mixture.means[:, 0]
        torch.testing.assert_close(mean, expected.unsqueeze(1).expand_as(mean))
    assert bool((mixture.log_weights - mixture.log_weights[:, :1]).abs().max() < 1e-12)


def test_errors_above_are_means_over_the_rows_above() -> None:
    reader = tiny(WIDE).reader
    residual = torch.randn(2, *WIDE.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = reader.errors_above(residual)
    error = residual.abs().mean(dim=1)
    for row in range(WIDE.height):
        for column in range(WIDE.width):
            near = error[:, max(0, row - 2) : row, max(0, column - 2) : column + 3]
            expected = [part.mean(dim=(1, 2)) if row else torch.zeros(2) for part in (near, error[:, :row])]
            for number, mean in enumerate(expected):
                torch.testing.assert_close(found[:, number, row, column], mean.to(found.dtype))


def test_the_first_features_are_the_neighbours_in_units_of_the_expected_error() -> None:
    model = tiny(WIDE)
    images = random_images(WIDE, 2, seed=2)
    planes = model.planes(images)
    image, pixel = torch.tensor([0, 1]), torch.tensor([0, 2 * WIDE.width + 13])
    features = model.reader(planes, image, pixel).features
    x = images.double() * (2 / 3) - 1

    def neighbour(offset: tuple[int, int]) -> Tensor:
        row, column = 2 + offset[0], 13 + offset[1]
        if column >= WIDE.width:
            return torch.zeros(3, dtype=torch.float64)
        return (x[1, :, row, column] - planes.prediction[1, :, 2, 13]) / planes.scale[1, 0, 2, 13]

    expected = torch.stack([neighbour(offset) for offset in causal_offsets(2)], dim=1).flatten()
    torch.testing.assert_close(features[1, : len(expected)], expected.clamp(-12, 12))
    assert bool((features[0, : len(expected)] == 0).all())  # the first pixel has none


def test_along_a_row_it_sees_the_neighbours_and_what_their_errors_are_made_of() -> None:
    """Radius 2: errors 2 pixels away, each of a prediction from 2 pixels further; nothing beyond in the same row."""
    model = tiny(ImageSpec(channels=1, height=1, width=14, levels=4))
    image = random_images(model.spec, 1, seed=4)
    with torch.no_grad():
        before = model.log_pmf(image)[0, 0, 0, 10]
        moved: list[int] = []
        for column in range(14):
            changed = image.clone()
            changed[0, 0, 0, column] = (changed[0, 0, 0, column] + 2) % 4
            if not torch.allclose(model.log_pmf(changed)[0, 0, 0, 10], before, rtol=0, atol=1e-12):
                moved.append(column)
    assert moved == [6, 7, 8, 9]
