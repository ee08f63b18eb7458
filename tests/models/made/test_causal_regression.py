from __future__ import annotations

import pytest
import torch

from dgm.models.made.causal_regression import causal_regression
from dgm.seeds import generator_for
from dgm.types import ImageSpec

SPEC = ImageSpec(channels=2, height=4, width=5, levels=8)


def samples(num_images: int) -> torch.Tensor:
    x = torch.randn(num_images, SPEC.num_subpixels, generator=generator_for(0), dtype=torch.float64)
    return x.cumsum(dim=1) * 0.3 + 0.5


def neighbours(target: int, ranks: torch.Tensor, radius: int) -> list[int]:
    row, column = target // 10, target // 2 % 5
    return [
        other
        for other in range(SPEC.num_subpixels)
        if abs(other // 10 - row) <= radius and abs(other // 2 % 5 - column) <= radius and ranks[other] < ranks[target]
    ]


@pytest.mark.parametrize("is_raster", [True, False])
def test_each_row_is_least_squares_on_earlier_neighbours(is_raster: bool) -> None:
    x = samples(300)
    size = SPEC.num_subpixels
    ranks = torch.arange(size) if is_raster else torch.randperm(size, generator=generator_for(1))
    weights, intercepts = causal_regression(x, ranks, SPEC, radius=1, ridge=0.0)
    for target in (0, 7, 24, 39):
        inputs = neighbours(target, ranks, 1)
        design = torch.cat([x[:, inputs], torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
        solution = torch.linalg.lstsq(design, x[:, target].unsqueeze(1)).solution.squeeze(1)
        expected = torch.zeros(size, dtype=x.dtype)
        expected[inputs] = solution[:-1]
        torch.testing.assert_close(weights[target], expected, rtol=0, atol=1e-8)
        torch.testing.assert_close(intercepts[target], solution[-1], rtol=0, atol=1e-8)


def test_constant_inputs_do_not_break_the_solve() -> None:
    weights, intercepts = causal_regression(
        torch.full((10, SPEC.num_subpixels), 0.25), torch.arange(SPEC.num_subpixels), SPEC, radius=2, ridge=1e-4
    )
    torch.testing.assert_close(weights, torch.zeros_like(weights))
    torch.testing.assert_close(intercepts, torch.full_like(intercepts, 0.25))
