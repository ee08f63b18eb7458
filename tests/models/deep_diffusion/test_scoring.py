"""Scoring by chosen steps: the same bound on average, exact where nothing is learned, and less noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dgm.dequantization import dequantize
from dgm.models.deep_diffusion.model import DeepDiffusion, DeepDiffusionConfig
from dgm.models.deep_diffusion.scoring import ScoredDeepDiffusion, start_kl
from dgm.registry import MODELS, SCORED, model_class, scored_class
from dgm.seeds import generator_for
from dgm.types import ImageSpec
from tests.models.fitted import correlated_images
from tests.tiny import TINY_MODELS

SPEC = ImageSpec(3, 2, 2, levels=8)
NUM_DRAWS = 3000


def new_model(kind: type[DeepDiffusion], is_random: bool = True, **changes: Any) -> DeepDiffusion:
    """In float64, fitted to correlated images; with random weights, or f = 0."""
    torch.manual_seed(1)
    values = TINY_MODELS["deep_diffusion"] | {"block": 1, "num_steps": 9, "num_evaluation_steps": 1} | changes
    model = kind(SPEC, DeepDiffusionConfig.model_validate(values)).double()
    model.prepare(correlated_images(300, SPEC), generator_for(0))
    with torch.no_grad():
        for parameter in model.parameters() if is_random else ():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def many_bounds(model: DeepDiffusion, seed: int) -> dict[str, Tensor]:
    """Parts of the bound of two images, each estimated often. Shapes: -> (NUM_DRAWS, 2)."""
    images = correlated_images(2, SPEC, seed=2).repeat(NUM_DRAWS, 1, 1, 1)
    return {name: term.view(NUM_DRAWS, 2) for name, term in model.bound_terms(images, generator_for(seed)).items()}


@pytest.mark.parametrize("num_steps_drawn", [1, 3])
@pytest.mark.parametrize("has_linear_start", [True, False])
def test_chosen_steps_say_the_same_as_all_of_them(num_steps_drawn: int, has_linear_start: bool) -> None:
    changes = {"has_linear_start": has_linear_start}
    few = many_bounds(new_model(ScoredDeepDiffusion, **changes, num_evaluation_steps=num_steps_drawn), seed=8)
    every = many_bounds(new_model(DeepDiffusion, **changes, num_evaluation_steps=0), seed=9)
    assert list(few) == list(every)
    for name, term in every.items():
        error = ((few[name].var(dim=0) + term.var(dim=0)) / NUM_DRAWS).sqrt()
        assert bool(((few[name].mean(dim=0) - term.mean(dim=0)).abs() <= 4 * error + 1e-9).all()), name


def test_with_all_steps_it_is_the_model_itself() -> None:
    mine, its = (
        many_bounds(new_model(kind, num_evaluation_steps=0), seed=4) for kind in (ScoredDeepDiffusion, DeepDiffusion)
    )
    assert all(torch.equal(mine[name], its[name]) for name in its)


def test_what_the_start_costs_per_step_adds_up_to_what_it_costs_per_band() -> None:
    model = new_model(ScoredDeepDiffusion, num_steps=130)  # more than are worked on at once
    y_0 = model.start.standardize(dequantize(correlated_images(5, SPEC), generator_for(0), torch.float64))
    per_step, per_band = start_kl(model.start, y_0), model.start.expected_kl(y_0)
    assert per_step.shape == (5, 129)
    bands = torch.zeros_like(per_band).index_add_(1, model.start.band[2:], per_step)
    assert torch.allclose(bands, per_band, rtol=1e-9)


@pytest.mark.parametrize("has_linear_start", [True, False])
def test_steps_come_up_as_often_as_their_weights_say(has_linear_start: bool) -> None:
    model = new_model(ScoredDeepDiffusion, has_linear_start=has_linear_start, num_evaluation_steps=2)
    assert isinstance(model, ScoredDeepDiffusion)
    y_0 = torch.randn(1, SPEC.num_subpixels, dtype=torch.float64, generator=generator_for(3)).expand(20000, -1)
    t, weights = model.draw_steps(y_0, generator_for(5))
    probability = model.step_probabilities(y_0[:1])[0]
    assert t.shape == weights.shape == (2, 20000)
    assert float(probability.sum()) == pytest.approx(1.0)
    assert bool((probability > 0).all())
    counts = torch.bincount(t.flatten(), minlength=model.config.num_steps + 1)[2:].double() / t.numel()
    assert torch.allclose(counts, probability, atol=0.012)
    assert torch.allclose(weights, 1 / (2 * probability[t - 2]))
    assert bool((t[0] <= t[1]).all())  # the strata of one image


def test_an_image_is_scored_alike_whatever_stands_beside_it() -> None:
    model = new_model(ScoredDeepDiffusion)
    assert isinstance(model, ScoredDeepDiffusion)
    y_0 = torch.randn(3, SPEC.num_subpixels, dtype=torch.float64, generator=generator_for(3))
    other = torch.cat([y_0[:1], 5 * y_0[1:]])
    assert torch.equal(
        model.draw_steps(y_0, generator_for(1))[0][:, 0], model.draw_steps(other, generator_for(1))[0][:, 0]
    )


def test_every_class_for_scoring_is_its_models_and_has_the_same_weights() -> None:
    for name in MODELS:
        kind, scored = model_class(name), scored_class(name)
        assert issubclass(scored, kind)
        assert (scored is not kind) == (name in SCORED)
        assert scored.config_type is kind.config_type
    assert list(new_model(ScoredDeepDiffusion).state_dict()) == list(new_model(DeepDiffusion).state_dict())
