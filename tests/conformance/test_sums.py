"""Densities on a grid, importance-weighted bounds and figures over images keep their contracts; faults are found."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from dgm.config.sections import EvaluationConfig
from dgm.conformance import bounds, checks, quadrature, test_set
from dgm.dequantization import dequantize
from dgm.evaluation import evaluate
from dgm.model_api.contracts import DensityModel, LatentVariableModel, LogLikelihood
from dgm.registry import model_class
from dgm.types import ImageSpec
from tests.conformance.test_checks import DENSITIES, EXACT, LATENT, assert_found, calm, exact
from tests.tiny import SMALL, random_images, tiny_model

ROW, COLUMN = ImageSpec(1, 1, 2, levels=3), ImageSpec(1, 2, 1, levels=5)  # two sub-pixels, two numbers of levels
OF_TWO: dict[str, dict[str, Any]] = {
    "deep_gmm": {"block_size": 1},
    "real_nvp": {"num_scales": 1},
    "ppca": {"num_components": 1},
}
FEW_POINTS = {"real_nvp": 80, "ride": 80}  # those that take longest


def of_two(name: str, spec: ImageSpec) -> DensityModel:
    return cast(DensityModel, tiny_model(name, spec, changes=OF_TWO.get(name)))


@pytest.mark.parametrize("spec", [ROW, COLUMN])
@pytest.mark.parametrize("name", sorted(DENSITIES))
def test_a_density_is_one_on_a_grid_and_dequantization_is_its_bound(name: str, spec: ImageSpec) -> None:
    model = of_two(name, spec)
    assert (finding := quadrature.integrates_to_one_on_a_grid(model, FEW_POINTS.get(name, 160))).holds, finding
    assert (finding := quadrature.dequantization_is_a_bound(model)).holds, finding


@pytest.mark.parametrize("name", sorted(LATENT))
def test_many_samples_are_the_probability_and_bounds_rise(name: str) -> None:
    model = calm(name, LATENT[name])
    assert isinstance(model, LatentVariableModel)
    assert (finding := bounds.many_samples_sum_to_one(model)).holds, finding
    assert (finding := bounds.bounds_rise(model, num_draws=20)).holds, finding


def figure(model: Any, images: Tensor) -> Any:
    """Mean bits per sub-pixel by the size of the batches, as the evaluate stage computes it, and nats by image."""

    def score(batch_size: int) -> Any:
        config = EvaluationConfig(batch_size=batch_size, num_draws=1, num_importance_samples=0)
        return evaluate.evaluate_split(
            model, images, config, 0, "m", lambda iterable, total, description, unit: iterable
        )

    return lambda size: score(size).bits_per_subpixel, score(len(images)).nats


def test_a_figure_is_the_mean_over_images_whatever_the_batches() -> None:
    model = exact("pixelcnn")
    bits, nats = figure(model, random_images(SMALL, 7))
    of_images = -nats / (SMALL.num_subpixels * math.log(2))
    assert (finding := test_set.figure_is_the_mean_over_images(bits, of_images)).holds, finding


# What follows are planted faults.


@pytest.mark.parametrize("spec", [ROW, COLUMN])
@pytest.mark.parametrize("name", ["nice", "multivariate_gaussian", "mixture_of_gaussians"])
def test_units_that_fit_one_number_of_levels_only(name: str, spec: ImageSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = of_two(name, spec), cast(Any, model_class(name)).log_density
    gained = model.spec.num_subpixels * math.log(model.spec.levels / 2)  # as from [-1, 1] without the log of its width
    monkeypatch.setattr(type(model), "log_density", lambda self, x: plain(self, x) + gained)
    assert_found(quadrature.integrates_to_one_on_a_grid(model))
    assert_found(quadrature.dequantization_is_a_bound(model))


@pytest.mark.parametrize("part", ["whitening_log_det", "log_scale"])
def test_a_part_of_a_log_determinant_is_missing(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = of_two("nice", COLUMN), cast(Any, model_class("nice")).log_density
    lost = getattr(model, part).double().sum().detach()
    assert abs(float(lost)) > 0.05
    monkeypatch.setattr(type(model), "log_density", lambda self, x: plain(self, x) - lost)
    assert_found(quadrature.integrates_to_one_on_a_grid(model))


def test_noise_that_is_left_out_or_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    model = of_two("real_nvp", ROW)

    def without(self: Any, images: Tensor, generator: torch.Generator) -> LogLikelihood:
        middle = images + 0.5 + 0.1 * (dequantize(images, generator, torch.float64) - images - 0.5)
        return LogLikelihood(self.log_density(middle), "dequantized")

    assert quadrature.dequantization_is_a_bound(model).holds
    monkeypatch.setattr(type(model), "log_likelihood", without)
    assert_found(quadrature.dequantization_is_a_bound(model))


def test_a_sum_of_weights_in_place_of_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = calm("vae", LATENT["vae"]), LatentVariableModel.importance_weighted

    def summed(self: Any, images: Tensor, generator: torch.Generator, num_samples: int) -> LogLikelihood:
        result = plain(self, images, generator, num_samples)
        return LogLikelihood(result.nats + math.log(num_samples), result.method)

    monkeypatch.setattr(LatentVariableModel, "importance_weighted", summed)
    assert_found(bounds.many_samples_sum_to_one(model, 50))


def test_the_best_or_the_worst_of_many_bounds_is_no_importance_weighting(monkeypatch: pytest.MonkeyPatch) -> None:
    model = calm("vae", LATENT["vae"], shake=0.08)

    def of_all(pick: Any) -> Any:
        def weighted(self: Any, images: Tensor, generator: torch.Generator, num_samples: int) -> LogLikelihood:
            weights = torch.stack([self.log_weights(images, generator) for _ in range(num_samples)])
            return LogLikelihood(pick(weights), "importance-weighted")

        return weighted

    assert (finding := bounds.many_samples_sum_to_one(model)).holds, finding
    monkeypatch.setattr(LatentVariableModel, "importance_weighted", of_all(lambda weights: weights.amax(dim=0)))
    assert_found(bounds.many_samples_sum_to_one(model))
    monkeypatch.setattr(LatentVariableModel, "importance_weighted", of_all(lambda weights: weights.amin(dim=0)))
    assert_found(bounds.bounds_rise(model))


def test_a_noisy_bound_of_too_much_is_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    model, kind = calm("vae", LATENT["vae"]), cast(Any, model_class("vae"))
    plain = kind.bound_terms

    def noisy(self: Any, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        terms = plain(self, images, generator)
        return {**terms, "noise": 20 + 30 * torch.randn(len(images), generator=generator, dtype=torch.float64)}

    monkeypatch.setattr(kind, "bound_terms", noisy)
    assert_found(checks.bound_sums_to_at_most_one(model, 60))


def test_a_mean_over_batches_of_unequal_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = exact("pixelcnn"), random_images(SMALL, 7)
    _, nats = figure(model, images)
    of_images = -nats / (SMALL.num_subpixels * math.log(2))

    def mean_of_batches(size: int) -> float:
        return float(torch.stack([batch.mean() for batch in of_images.split(size)]).mean())

    def last_batch_dropped(size: int) -> float:
        return float(of_images[: len(of_images) // size * size].mean())

    for fault in (mean_of_batches, last_batch_dropped):
        assert_found(test_set.figure_is_the_mean_over_images(fault, of_images))


@pytest.mark.parametrize("name", [name for name in EXACT if name in ("made", "gated_pixelcnn")])
def test_a_pmf_that_is_clipped_and_normalised_while_the_claim_is_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plain = exact(name), cast(Any, model_class(name)).log_pmf
    monkeypatch.setattr(
        type(model), "log_pmf", lambda self, images: plain(self, images).clamp(min=-1.3).log_softmax(dim=-1)
    )
    finding = checks.conditionals_add_up(model, random_images(SMALL, 5))
    assert_found(finding)
    assert "log of a sum up to 0" in finding.detail or "e-" in finding.detail.rpartition("up to")[2]


def test_training_images_among_the_test_images() -> None:
    train, test = random_images(SMALL, 30), random_images(SMALL, 10, seed=1)
    assert test_set.no_image_was_trained_on(test, train).holds
    for shared in (train[7], train[7].flip(-1)):
        among = test.clone()
        among[4] = shared
        finding = test_set.no_image_was_trained_on(among, train)
        assert_found(finding)
        assert "1 test images are training images, the first is number 4" in finding.detail
    twice = torch.cat([test, test[:1]])
    assert_found(test_set.no_image_was_trained_on(twice, train))
