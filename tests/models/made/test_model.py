"""MADE: ensembles, orders, linear start, published size. The contract tests do the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dgm.model_api.ancestral import RecomputedConditionals
from dgm.models.made.model import MADE, MADEConfig
from dgm.nets.sequence import from_sequence, to_sequence
from dgm.seeds import generator_for
from dgm.types import CIFAR10, ImageSpec
from tests.models.fitted import SMALL, correlated_images
from tests.tiny import ENUMERABLE, all_images, random_images


def config(**changes: Any) -> MADEConfig:
    values: dict[str, Any] = {"ordering": "natural", "hidden_sizes": [8], "num_components": 2, "num_masks": 1}
    values |= {"ensemble_size": 1, "mask_seed": 3, "dropout": 0.0, "regression_radius": 1, "num_regression_images": 500}
    return MADEConfig(**(values | changes))


def random_model(spec: ImageSpec, **changes: Any) -> MADE:
    torch.manual_seed(0)
    model = MADE(spec, config(**changes)).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=2.0)
    return model


@pytest.mark.parametrize("ordering", ["natural", "random", "order_agnostic"])
def test_an_ensemble_is_the_average_of_joints_and_a_distribution(ordering: str) -> None:
    model = random_model(ENUMERABLE, ordering=ordering, num_masks=4, ensemble_size=3, hidden_sizes=[8, 7])
    images = all_images(ENUMERABLE)
    with torch.no_grad():
        probabilities = model.log_prob(images).exp()
        members = [model.log_prob_of_mask(to_sequence(images), mask).exp() for mask in range(3)]
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(probabilities, torch.stack(members).mean(dim=0))
    assert (members[0] - members[1]).abs().max() > 1e-4


def test_averaged_logits_of_several_orders_would_be_no_distribution() -> None:
    """The fault of popular code, planted: the sum over all images catches it."""
    model = random_model(ENUMERABLE, ordering="order_agnostic", num_masks=3, ensemble_size=3)
    images = all_images(ENUMERABLE)
    values = to_sequence(images)
    with torch.no_grad():
        logits = [model.mixture_of_mask(values, mask).log_pmf(values.unsqueeze(-1)).squeeze(-2) for mask in range(3)]
    averaged = torch.stack(logits).mean(dim=0).log_softmax(dim=-1)
    total = averaged.gather(-1, values.unsqueeze(-1)).sum(dim=(1, 2)).exp().sum()
    assert abs(float(total) - 1) > 0.01


def test_orders() -> None:
    raster = torch.arange(SMALL.num_subpixels).view(3, -1).T.flatten()
    assert torch.equal(MADE(SMALL, config()).order(), raster)
    shuffled = MADE(SMALL, config(ordering="random", num_masks=2))
    assert torch.equal(shuffled.order().sort().values, raster.sort().values)
    assert not torch.equal(shuffled.order(), raster)
    assert torch.equal(shuffled.ranks[0], shuffled.ranks[1])
    agnostic = MADE(SMALL, config(ordering="order_agnostic", num_masks=2))
    assert not torch.equal(agnostic.ranks[0], agnostic.ranks[1])


def test_an_ensemble_over_orders_scores_but_refuses_conditionals_and_samples() -> None:
    model = random_model(ENUMERABLE, ordering="order_agnostic", num_masks=2, ensemble_size=2)
    assert model.log_prob(random_images(ENUMERABLE, 2)).isfinite().all()
    for refused in (
        model.order,
        lambda: model.conditionals(1),
        lambda: model.log_pmf(random_images(ENUMERABLE, 1)),
        lambda: RecomputedConditionals(model, 1),
        lambda: model.sample(1, generator_for(0)),
    ):
        with pytest.raises(ValueError, match="set ensemble_size to 1"):
            refused()


def test_masks_travel_with_the_weights() -> None:
    model = random_model(SMALL, ordering="random", num_masks=2, ensemble_size=2)
    other = MADE(SMALL, config(ordering="random", num_masks=2, ensemble_size=2, mask_seed=99)).double()
    images = random_images(SMALL, 2)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.log_prob(images), other.log_prob(images))
    assert torch.equal(model.order(), other.order())


def test_training_cycles_through_all_masks() -> None:
    model, images = random_model(SMALL, num_masks=3), random_images(SMALL, 2)
    of_mask = [model.log_prob_of_mask(to_sequence(images), mask).detach() for mask in range(3)]
    used = set()
    for seed in range(20):
        nats = model.objective(images, generator_for(seed), 0.0).nats
        used |= {mask for mask, expected in enumerate(of_mask) if torch.equal(nats, expected)}
    assert used == {0, 1, 2}


def means_of(model: MADE, images: torch.Tensor) -> torch.Tensor:
    """Mean of the first component of every conditional, in levels, (N, C, H, W)."""
    with torch.no_grad():
        means = model.mixture_of_mask(to_sequence(images), 0).means[..., 0, 0]
    return (from_sequence(means, model.spec) + 1) * (model.spec.levels - 1) / 2


def test_before_preparation_the_mean_is_the_left_neighbour() -> None:
    model, images = MADE(SMALL, config()).double(), random_images(SMALL, 3)
    torch.testing.assert_close(means_of(model, images)[..., 1:], images[..., :-1].double(), rtol=0, atol=1e-5)


def test_preparation_predicts_better_and_measures_its_residual() -> None:
    images = correlated_images(600, SMALL)
    copy, model = MADE(SMALL, config()).double(), MADE(SMALL, config()).double()
    model.prepare(images, generator_for(0))
    residual = images - means_of(model, images)
    assert residual[..., 1:].square().mean() < 0.7 * (images - means_of(copy, images))[..., 1:].square().mean()
    assert residual.mean(dim=0).abs().max() < 0.3
    deviation = residual.square().mean(dim=0).sqrt().permute(1, 2, 0).flatten()
    scale_in_levels = model.residual_scale * (SMALL.levels - 1) / 2
    torch.testing.assert_close(scale_in_levels, deviation * 3**0.5 / torch.pi, rtol=0.05, atol=0.02)
    assert model.log_prob(images).mean() > copy.log_prob(images).mean() + 20


@pytest.mark.parametrize("changes", [{"regression_radius": 0}, {"ordering": "order_agnostic", "num_masks": 2}])
def test_preparation_leaves_the_copy_where_no_predictor_is_asked_for_or_causal(changes: dict[str, Any]) -> None:
    model = MADE(SMALL, config(**changes))
    before = model.head_direct.weight.clone()
    model.prepare(correlated_images(50, SMALL), generator_for(0))
    assert torch.equal(model.head_direct.weight, before)


def test_bfloat16_does_not_round_the_linear_prediction() -> None:
    spec = ImageSpec(channels=3, height=2, width=8, levels=256)
    model, images = MADE(spec, config()), random_images(spec, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        means = means_of(model, images)
    torch.testing.assert_close(means[..., 1:], images[..., :-1].float(), rtol=0, atol=1e-3)


def test_published_size() -> None:
    """204.6 million parameters with 2,048 hidden units and 10 components: 3,072 x 30 outputs and the direct link."""
    with torch.device("meta"):
        model = MADE(CIFAR10, config(hidden_sizes=[2048], num_components=10))
    assert model.num_parameters() == 204_569_600 + 3072  # the measured scales


def test_an_ensemble_larger_than_the_masks_is_refused() -> None:
    with pytest.raises(ValueError, match="ensemble_size 2 is more than num_masks 1"):
        MADE(CIFAR10, config(ensemble_size=2))


@pytest.mark.parametrize("ordering", ["natural", "random"])
def test_conditionals_cross_blocks_of_positions(ordering: str) -> None:
    spec = ImageSpec(3, 7, 7, 6)  # 147 sub-pixels: two blocks of 64 and a part of one
    model = random_model(spec, ordering=ordering, hidden_sizes=[40, 30], num_masks=2, ensemble_size=2)
    images = random_images(spec, 3)
    conditionals, flat = model.conditionals(3), images.flatten(1).long()
    with torch.no_grad():
        expected = model.log_pmf(images).flatten(1, 3)
    for index in model.order().tolist():
        torch.testing.assert_close(conditionals.log_pmf(), expected[:, index], rtol=0, atol=1e-9)
        conditionals.push(flat[:, index])
