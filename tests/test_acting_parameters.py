"""What a model says about the weights that cannot act, against brute force: the gradient of every weight."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgm.model_api.contracts import HasIdleWeights, Model
from dgm.registry import MODELS
from dgm.seeds import generator_for
from tests.tiny import random_images
from tests.variants import TRAINED_VARIANTS, VARIANTS

BORDER = ("wavenet-long", "gated_pixelcnn-wide")
# in these a kernel reaches beyond the whole image: more is idle at this size than the model says
SAME = ("-oblong", "-grey", "-row", "-column", "-3_stages", "-3_deep", "-three_steps", "-whole", "-deep")
# other shapes of image and depths, made of the same layers
KINDS = [name for name in TRAINED_VARIANTS if name not in BORDER and (not name.endswith(SAME) or name == "made-deep")]
NUM_DRAWS = 6  # of random weights: a unit that is off in one is on in another
NOTHING = 1e-10  # a softmax cancels up to rounding; every other weight moves some image by far more


def silent_weights(model: Model) -> dict[str, Tensor]:
    """Weights whose gradient is zero for all of many images, under several draws of all weights. Brute force."""
    largest = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    for draw in range(NUM_DRAWS):
        generator = generator_for(draw)
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator) + 0.1 * (draw % 2))
        model.zero_grad()
        nats = model.log_likelihood(random_images(model.spec, 64, draw), generator).nats
        (nats * torch.randn(len(nats), generator=generator)).sum().backward()
        for name, weight in model.named_parameters():
            if weight.grad is not None:
                assert bool(weight.grad.isfinite().all()), name
                largest[name] = torch.maximum(largest[name], weight.grad.abs())
    return {name: gradient < NOTHING for name, gradient in largest.items()}


def idle_weights(model: Model) -> dict[str, Tensor]:
    """What the parts of the model say, by the names that the weights have in the model."""
    idle = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in model.named_parameters()}
    for place, module in model.named_modules():
        if isinstance(module, HasIdleWeights):
            for name, entries in module.idle_weights().items():
                idle[f"{place}.{name}".lstrip(".")] |= entries
    return idle


@pytest.mark.parametrize("name", KINDS)
def test_weights_that_are_said_to_be_idle_are_those_that_change_nothing(name: str) -> None:
    model = VARIANTS[name].build(VARIANTS[name].small)
    silent, idle = silent_weights(model), idle_weights(model)
    wrong = [name for name in silent if not torch.equal(silent[name], idle[name])]
    assert not wrong
    number = sum(int(entries.sum()) for entries in silent.values())
    assert model.num_acting_parameters() == model.num_parameters() - number


@pytest.mark.parametrize("name", BORDER)
def test_no_weight_is_said_to_be_idle_that_changes_something(name: str) -> None:
    model = VARIANTS[name].build(VARIANTS[name].small)
    silent, idle = silent_weights(model), idle_weights(model)
    assert not [name for name in silent if bool((idle[name] & ~silent[name]).any())]


@pytest.mark.parametrize("name", sorted(set(MODELS) - {VARIANTS[name].model for name in TRAINED_VARIANTS}))
def test_all_parameters_of_a_fitted_model_act(name: str) -> None:
    model = VARIANTS[name].build(VARIANTS[name].small)
    assert model.num_acting_parameters() == model.num_parameters()
