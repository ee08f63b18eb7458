"""The fast pmf of a logistic mixture: the logarithms' values at any scale, type, size and number of levels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgm.distributions import logistic_mixture_pmf as fast
from dgm.distributions.discretized_logistic import discretized_logistic_log_pmf


def parameters(num_images: int, num_components: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Log-weights, means and log-scales, float64: components far outside, others sharper than a level, some only so."""
    draws = torch.randn(3, num_images, num_components, generator=torch.Generator().manual_seed(seed)).double()
    log_scales = 3 * draws[2] - 3
    log_scales[: num_images // 4] = -7.0
    return torch.log_softmax(8 * draws[0], dim=1), 1.5 * draws[1], log_scales


def of_logarithms(log_weights: Tensor, means: Tensor, log_scales: Tensor, levels: int) -> Tensor:
    components = discretized_logistic_log_pmf(means, log_scales, levels)
    return torch.logsumexp(log_weights.unsqueeze(-1) + components, dim=1)


@pytest.mark.parametrize("levels", [2, 3, 8, 256])
@pytest.mark.parametrize("num_components", [1, 5])
def test_it_is_the_pmf_of_logarithms(levels: int, num_components: int) -> None:
    mixture = parameters(211, num_components)
    expected = of_logarithms(*mixture, levels)
    assert float(expected.min()) < -710  # too small for a float64
    torch.testing.assert_close(fast.logistic_mixture_log_pmf(*mixture, levels), expected, atol=1e-9, rtol=1e-12)
    pmf = fast.logistic_mixture_pmf(mixture[0].exp(), *mixture[1:], levels)
    torch.testing.assert_close(pmf, expected.exp(), atol=1e-11, rtol=0.0)
    torch.testing.assert_close(pmf.sum(dim=1), torch.ones(211).double(), atol=1e-12, rtol=0.0)


def test_float32_is_as_exact_as_its_edges() -> None:
    mixture = parameters(500, 5)
    expected = of_logarithms(*mixture, 256)
    log_weights, means, log_scales = (x.float() for x in mixture)
    log_pmf = fast.logistic_mixture_log_pmf(log_weights, means, log_scales, 256)
    assert log_pmf.dtype == torch.float32 and bool(log_pmf.isfinite().all())
    steepness = 1 + (-mixture[2]).exp().amax(dim=1, keepdim=True)  # an edge is a rounding of 1, times 1 / scale
    assert float(((log_pmf - expected).abs() / steepness).max()) < 2e-6
    torch.testing.assert_close(log_pmf.exp().sum(dim=1), torch.ones(500), atol=1e-5, rtol=0.0)


def test_half_precision_is_widened() -> None:
    log_weights, means, log_scales = (x.bfloat16() for x in parameters(20, 3))
    log_pmf = fast.logistic_mixture_log_pmf(log_weights, means, log_scales, 256)
    widened = fast.logistic_mixture_log_pmf(log_weights.float(), means.float(), log_scales.float(), 256)
    torch.testing.assert_close(log_pmf.float(), widened, atol=0.1, rtol=0.02)


@pytest.mark.parametrize("num_images", [1, 2, 7, 50])
def test_neither_chunks_nor_neighbours_change_an_image(num_images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mixture = parameters(50, 3)
    whole = fast.logistic_mixture_log_pmf(*mixture, 256)
    monkeypatch.setattr(fast, "CHUNK_NUMBERS", 3 * 256 * 4)
    log_weights, means, log_scales = (x[:num_images] for x in mixture)
    part = fast.logistic_mixture_log_pmf(log_weights, means, log_scales, 256)
    torch.testing.assert_close(part, whole[:num_images], atol=1e-12, rtol=1e-13)
