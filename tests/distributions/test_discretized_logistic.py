"""The discretized logistic sums to one everywhere, has the right hand values and finite gradients."""

from __future__ import annotations

import math

import pytest
import torch

from dgm.distributions.discretized_logistic import (
    discretized_logistic_log_pmf,
    discretized_logistic_log_prob,
    levels_from_unit,
    sample_discretized_logistic,
    unit_from_levels,
)

MEANS = torch.tensor([-5.0, -1.0, -0.3, 0.0, 0.999, 1.0, 1.7, 5.0], dtype=torch.float64)


@pytest.mark.parametrize("levels", [2, 3, 8, 256])
@pytest.mark.parametrize("log_scale", [-12.0, -7.0, -3.0, 0.0, 3.0, 12.0])
def test_probabilities_sum_to_one(levels: int, log_scale: float) -> None:
    log_pmf = discretized_logistic_log_pmf(MEANS, torch.full_like(MEANS, log_scale), levels)
    torch.testing.assert_close(log_pmf.logsumexp(dim=-1), torch.zeros_like(MEANS), atol=1e-11, rtol=0.0)


def test_hand_values_of_a_logistic_one_grey_level_wide() -> None:
    mean, log_scale = torch.zeros((), dtype=torch.float64), torch.tensor(-math.log(127.5), dtype=torch.float64)
    log_pmf = discretized_logistic_log_pmf(mean, log_scale, 256)
    assert log_pmf[128].exp().item() == pytest.approx(1 / (1 + math.exp(-1)) - 0.5, abs=1e-12)
    assert log_pmf[128].exp().item() == pytest.approx(0.231059, abs=1e-6)
    assert log_pmf[0].item() == pytest.approx(-127.0, abs=1e-9)
    torch.testing.assert_close(log_pmf, log_pmf.flip(0))


def test_float32_and_half_precision_agree_with_float64() -> None:
    values = torch.tensor([0, 1, 17, 128, 254, 255])[:, None, None]
    means = MEANS.bfloat16()[:, None]
    log_scales = torch.tensor([-7.0, -2.0, 3.0]).bfloat16()
    exact = discretized_logistic_log_prob(values, means.double(), log_scales.double(), 256)
    for dtype in (torch.float32, torch.bfloat16):
        rounded = discretized_logistic_log_prob(values, means.to(dtype), log_scales.to(dtype), 256)
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded.double(), exact, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("log_scale", [-120.0, -7.0, 3.0, 120.0])
def test_gradients_are_finite_far_from_the_mean(log_scale: float) -> None:
    mean = MEANS.float().requires_grad_()
    scale = torch.full_like(mean, log_scale).requires_grad_()
    log_pmf = discretized_logistic_log_pmf(mean, scale, 256)
    log_pmf.sum().backward()
    assert log_pmf.isfinite().all()
    for gradient in (mean.grad, scale.grad):
        assert gradient is not None
        assert gradient.isfinite().all()


def test_levels_and_positions_are_inverse() -> None:
    values = torch.arange(256)
    assert torch.equal(levels_from_unit(unit_from_levels(values, 256, torch.float32), 256), values)
    assert levels_from_unit(torch.tensor([-3.0, 3.0]), 256).tolist() == [0, 255]


def test_draws_follow_the_probabilities() -> None:
    mean, log_scale = torch.full((40000,), 0.6), torch.full((40000,), -1.0)
    draws = sample_discretized_logistic(mean, log_scale, 5, torch.Generator().manual_seed(0))
    expected = discretized_logistic_log_pmf(mean[0], log_scale[0], 5).exp()
    torch.testing.assert_close(draws.bincount(minlength=5) / 40000, expected, atol=0.01, rtol=0.0)
