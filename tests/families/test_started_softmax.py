"""What a fitted start and a loss at some of the pixels promise, on every model that has them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from dgm.families.started_softmax import StartedSoftmax, chosen
from dgm.registry import MODELS, model_class
from dgm.seeds import generator_for
from dgm.types import ImageSpec
from tests.tiny import PLAIN, SMALL, random_images, tiny_model, untrained_model

STARTED = [name for name in MODELS if issubclass(model_class(name), StartedSoftmax)]
SPEC = ImageSpec(3, 3, 3, 4)


def started(name: str, spec: ImageSpec = SPEC, is_random: bool = True, **changes: Any) -> StartedSoftmax:
    model = (tiny_model if is_random else untrained_model)(name, spec, changes=changes)
    assert isinstance(model, StartedSoftmax)
    return model


def test_there_are_such_models() -> None:
    assert set(STARTED) == {"pixelcnn", "gated_pixelcnn", "row_lstm", "diagonal_bilstm", "wavenet"}


@pytest.mark.parametrize("name", STARTED)
def test_training_begins_at_the_regression(name: str) -> None:
    model, images = started(name, SMALL, is_random=False), random_images(SMALL, 4, seed=1)
    model.prepare(random_images(SMALL, 60), generator_for(0))
    assert model.start is not None
    mean, log_scale = model.start.parameters_of(images)
    log_pmf, _ = model.start.levels(mean.flatten(), log_scale.flatten())
    values = images.flatten(2).transpose(1, 2).reshape(-1, 1).long()
    expected = log_pmf.double().gather(1, values).view(4, -1).sum(dim=1)
    torch.testing.assert_close(model.log_prob(images).detach(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", STARTED)
def test_the_start_is_fitted_to_the_first_images_only(name: str) -> None:
    images = random_images(SPEC, 30)
    model, same, other = (started(name, is_random=False, num_start_images=n) for n in (20, 20, 30))
    model.prepare(images, generator_for(0))
    same.prepare(images[:20], generator_for(1))
    other.prepare(images, generator_for(0))
    kernels = [each.start.mean_kernel for each in (model, same, other) if each.start is not None]
    assert torch.equal(kernels[0], kernels[1])
    assert not torch.equal(kernels[0], kernels[2])


@pytest.mark.parametrize("name", STARTED)
@pytest.mark.parametrize("changes", [{}, PLAIN])
def test_nats_at_single_pixels_add_up_to_those_of_the_image(name: str, changes: dict[str, Any]) -> None:
    model, images = started(name, **changes), random_images(SPEC, 2, seed=3)
    with torch.no_grad():
        parts = [model.nats_at(images, torch.full((2, 1), pixel)) for pixel in range(9)]
        torch.testing.assert_close(torch.stack(parts).sum(dim=0), model.log_prob(images), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", STARTED)
def test_the_loss_at_some_pixels_is_unbiased(name: str) -> None:
    """Its mean over many draws of the pixels is the loss of the whole images, within 5 standard errors."""
    model, images = started(name, scored_fraction=0.2), random_images(SPEC, 200, seed=4)[:1].repeat(400, 1, 1, 1)
    with torch.no_grad():
        losses = model.objective(images, generator_for(6), 0.0).loss
        whole = -model.log_prob(images[:1])
    error = float(losses.std()) / math.sqrt(len(losses))
    assert error > 0
    assert abs(float(losses.mean() - whole)) < 5 * error


@pytest.mark.parametrize("name", STARTED)
def test_the_loss_at_all_pixels_is_that_of_the_image(name: str) -> None:
    model, images = started(name, scored_fraction=1.0), random_images(SPEC, 3, seed=5)
    with torch.no_grad():
        objective = model.objective(images, generator_for(0), 0.0)
        torch.testing.assert_close(objective.loss, -model.log_prob(images), rtol=0, atol=0)
        torch.testing.assert_close(objective.nats, model.log_prob(images), rtol=0, atol=0)


def test_chosen_rows_are_those_of_their_own_image() -> None:
    rows = torch.arange(12).view(2, 3, 2)
    assert chosen(rows, torch.tensor([[2], [0]])).tolist() == [[[4, 5]], [[6, 7]]]
    assert chosen(rows, None) is rows


@pytest.mark.parametrize("name", STARTED)
def test_the_start_counts_as_parameters(name: str) -> None:
    model, plain = started(name, is_random=False), started(name, is_random=False, **PLAIN)
    assert model.start is not None
    assert plain.start is None
    shapes = sum(p.numel() for key, p in model.named_parameters() if "head_shapes" in key)
    assert model.num_parameters() == plain.num_parameters() + shapes + model.start.num_parameters()
