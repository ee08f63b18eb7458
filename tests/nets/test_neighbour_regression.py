"""The fitted start: its probabilities, its shapes, what it learns, single precision. The contract tests do the rest."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dgm.distributions.discretized_logistic import discretized_logistic_log_pmf
from dgm.models.ridge_autoregressive import RidgeAutoregressive, RidgeAutoregressiveConfig
from dgm.nets.neighbour_regression import NUM_SHAPES, UNIFORM_SHARE, NeighbourRegression, added
from dgm.seeds import generator_for
from dgm.types import ImageSpec

SPEC = ImageSpec(3, 8, 8, 64)


def smooth_images(count: int, seed: int = 0) -> Tensor:
    """Sums of random walks down and to the right, with noise that is larger on the right."""
    noise = torch.randn(count, *SPEC.shape, generator=generator_for(seed), dtype=torch.float64)
    walk = noise.cumsum(dim=2) + noise.flip(1).cumsum(dim=3) + noise[:, :1] * torch.arange(8)
    return (32 + 2 * walk).round().clamp(0, SPEC.levels - 1).to(torch.uint8)


def fitted(count: int = 300) -> NeighbourRegression:
    regression = NeighbourRegression(SPEC).double()
    regression.fit(smooth_images(count))
    return regression


def nats_of(regression: NeighbourRegression, images: Tensor) -> Tensor:
    """Shapes: -> (N,)."""
    mean, log_scale = regression.parameters_of(images)
    log_pmf, _ = regression.levels(mean.flatten(), log_scale.flatten())
    values = images.flatten(2).transpose(1, 2).reshape(-1, 1).long()
    return log_pmf.gather(1, values).view(len(images), -1).sum(dim=1)


def test_levels_are_the_discretized_logistic_and_a_little_uniform() -> None:
    mean, log_scale = torch.tensor([-1.2, 0.1, 0.9]).double(), torch.tensor([-4.0, -2.0, 0.5]).double()
    log_pmf, _ = NeighbourRegression(SPEC).double().levels(mean, log_scale)
    expected = (1 - UNIFORM_SHARE) * discretized_logistic_log_pmf(mean, log_scale, 64).exp() + UNIFORM_SHARE / 64
    torch.testing.assert_close(log_pmf, expected.log(), rtol=0, atol=1e-10)
    torch.testing.assert_close(log_pmf.logsumexp(dim=1), torch.zeros(3).double(), rtol=0, atol=1e-12)


def test_shapes_are_the_logarithm_and_polynomials_of_the_distribution_function() -> None:
    mean, log_scale = torch.tensor([-0.3, 0.8]).double(), torch.tensor([-3.0, -1.0]).double()
    log_pmf, shapes = NeighbourRegression(SPEC).double().levels(mean, log_scale)
    angle = (2 * log_pmf.exp().cumsum(dim=1) - log_pmf.exp() - 1).acos()
    expected = torch.stack([(j * angle).cos() for j in range(1, NUM_SHAPES)], dim=1)  # T_j(cos a) = cos(j a)
    torch.testing.assert_close(shapes[:, 1:], expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(shapes[:, 0], 0.3 * log_pmf)


def test_amounts_of_zero_leave_the_regression_and_others_add_shapes() -> None:
    log_pmf, shapes = NeighbourRegression(SPEC).levels(torch.zeros(2), torch.full((2,), -2.0))
    outputs = torch.zeros(2, 64 + NUM_SHAPES)
    torch.testing.assert_close(added(outputs, log_pmf, shapes), log_pmf)
    outputs[1, 64 + 2], outputs[1, 5] = 0.5, 3.0
    change = added(outputs, log_pmf, shapes) - log_pmf
    expected = 0.5 * shapes[1, 2]
    expected[5] += 3.0
    torch.testing.assert_close(change, torch.stack([torch.zeros(64), expected]), rtol=0, atol=1e-5)


def test_it_predicts_new_images_as_well_as_the_ridge_row() -> None:
    config = RidgeAutoregressiveConfig(radius=3, ridge=1e-6, num_scales=32, uniform_share=0.002, num_fit_images=300)
    ridge, new = RidgeAutoregressive(SPEC, config), smooth_images(100, seed=1)
    ridge.start(smooth_images(300), generator_for(0))
    bits = -nats_of(fitted(), new).mean() / SPEC.num_subpixels / math.log(2)
    ridge_bits = -ridge.log_prob(new).mean() / SPEC.num_subpixels / math.log(2)
    assert float(bits) < float(ridge_bits) + 0.03
    assert float(ridge_bits) < 5.0  # of the 6 of a uniform guess: the images can be predicted


def test_single_precision_loses_little() -> None:
    regression, images = fitted(), smooth_images(20, seed=2)
    exact = nats_of(regression, images)
    torch.testing.assert_close(nats_of(regression.float(), images).double(), exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("spec", [ImageSpec(1, 1, 2, 2), ImageSpec(2, 3, 2, 5)])
def test_fewer_pixels_than_knots_are_enough(spec: ImageSpec) -> None:
    regression = NeighbourRegression(spec)
    regression.fit(torch.randint(0, spec.levels, (3, *spec.shape), generator=generator_for(0)).to(torch.uint8))
    assert all(bool(buffer.isfinite().all()) for buffer in regression.buffers())
    assert bool((regression.knots.diff(dim=1) >= 0).all())


def test_parameters_are_the_weights_of_the_past_and_the_knots() -> None:
    regression = fitted()
    num_kernel = int((regression.mean_kernel != 0).sum() + (regression.error_kernel != 0).sum())
    assert regression.num_parameters() == num_kernel + 2 * 3 * 32
