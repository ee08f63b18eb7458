"""Means, errors and the way a number was reached."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from dgm.config.parse import Config
from dgm.config.sections import EvaluationConfig
from dgm.evaluation.evaluate import SplitResult, evaluate_split
from dgm.model_api.contracts import DensityModel, LatentVariableModel, Model
from dgm.types import ImageSpec
from dgm.units import nats_to_bits_per_subpixel
from tests.tiny import random_images, tiny_model

SPEC = ImageSpec(1, 1, 2, levels=4)


class NoConfig(Config):
    """Nothing to set."""


class Ramp(DensityModel):
    """A density that rises with the first sub-pixel, so that dequantization noise matters."""

    config_type = NoConfig

    def log_density(self, x: Tensor) -> Tensor:
        return (x.double()[:, 0, 0, 0] / 8).log() - math.log(4)

    def sample_density(self, num_images: int, generator: torch.Generator, temperature: float) -> Tensor:
        return torch.zeros(num_images, *self.spec.shape)


class CoinLatent(LatentVariableModel):
    """z is a fair bit, x is certain to be z: p(x) = 1/2; the approximate posterior is right with probability 3/4."""

    config_type = NoConfig

    def bound_terms(self, images: Tensor, generator: torch.Generator) -> Mapping[str, Tensor]:
        weights = self.log_weights(images, generator)
        return {"reconstruction": weights - math.log(0.5), "prior": torch.full_like(weights, math.log(0.5))}

    def log_weights(self, images: Tensor, generator: torch.Generator) -> Tensor:
        is_right = torch.rand(len(images), generator=generator) < 0.75
        right, wrong = math.log(0.5 / 0.75), math.log(0.5e-3 / 0.25)
        return torch.where(is_right, torch.tensor(right), torch.tensor(wrong)).double()

    def sample(self, num_images: int, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        return torch.zeros(num_images, *self.spec.shape, dtype=torch.uint8)


def no_bar(iterable: Iterable[int], total: int, description: str, unit: str) -> Iterable[int]:
    return iterable


def evaluate(model: Model, images: Tensor, draws: int = 1, samples: int = 0) -> SplitResult:
    config = EvaluationConfig(batch_size=7, num_draws=draws, num_importance_samples=samples)
    return evaluate_split(model, images, config, 1, "test", no_bar)


def test_the_uniform_model_has_exactly_log2_of_its_levels() -> None:
    spec = ImageSpec(3, 4, 4, levels=256)
    result = evaluate(tiny_model("uniform", spec), random_images(spec, 20), draws=3)
    assert result.bits_per_subpixel == pytest.approx(8.0, abs=1e-12)
    assert (result.method, result.kind, result.monte_carlo_error) == ("exact", "exact", None)
    assert result.standard_error == pytest.approx(0.0, abs=1e-12)


def test_draws_are_averaged_in_nats_and_their_error_is_stated() -> None:
    images = random_images(SPEC, 4000)
    result = evaluate(Ramp(SPEC, NoConfig()), images, draws=16)
    v = np.arange(4.0)
    upper = (v + 1) * np.log((v + 1) / 8) - (v + 1)
    lower = np.where(v > 0, v * np.log(np.maximum(v, 1) / 8) - v, 0.0)
    expected_nats = (upper - lower - math.log(4))[images[:, 0, 0, 0].numpy()].mean()
    expected = -float(nats_to_bits_per_subpixel(expected_nats, SPEC))
    assert result.monte_carlo_error is not None
    assert 0 < result.monte_carlo_error < 0.005
    assert abs(result.bits_per_subpixel - expected) < 4 * result.monte_carlo_error
    assert (result.method, result.kind) == ("dequantized", "lower_bound")
    assert evaluate(Ramp(SPEC, NoConfig()), images, draws=1).monte_carlo_error is None


def test_the_standard_error_is_that_of_the_mean_over_images() -> None:
    images = random_images(SPEC, 500)
    result = evaluate(Ramp(SPEC, NoConfig()), images)
    bits = -nats_to_bits_per_subpixel(result.nats.numpy(), SPEC)
    assert result.standard_error == pytest.approx(bits.std(ddof=1) / math.sqrt(500), rel=1e-9)
    assert result.bits_per_subpixel == pytest.approx(bits.mean(), rel=1e-12)


def test_importance_samples_tighten_the_bound_and_stay_below_the_truth() -> None:
    images = random_images(SPEC, 3000)
    truth = float(nats_to_bits_per_subpixel(math.log(2), SPEC))
    results = [evaluate(CoinLatent(SPEC, NoConfig()), images, samples=k) for k in (0, 4, 64)]
    bits = [result.bits_per_subpixel for result in results]
    assert bits[0] > bits[1] > bits[2] > truth - 0.02
    assert [result.method for result in results] == ["elbo", "importance-weighted (4)", "importance-weighted (64)"]
    assert results[1].elbo_bits_per_subpixel == pytest.approx(bits[0], rel=1e-12)
    assert results[0].elbo_bits_per_subpixel is None


def test_terms_sum_to_the_bound() -> None:
    result = evaluate(CoinLatent(SPEC, NoConfig()), random_images(SPEC, 100), draws=3)
    assert sum(result.terms_bits_per_subpixel.values()) == pytest.approx(result.bits_per_subpixel, rel=1e-9)
