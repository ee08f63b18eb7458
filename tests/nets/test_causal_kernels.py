"""Least squares on the causal neighbourhood, against the same regression written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.nets.causal_kernels import causal_kernels, causal_pad, with_inside

RADIUS, RIDGE = 2, 1e-3


def planes(num: int = 30) -> Tensor:
    noise = torch.Generator().manual_seed(2)
    return with_inside(torch.randn(num, 2, 6, 7, generator=noise, dtype=torch.float64).cumsum(dim=-1))


@pytest.mark.parametrize("sees_earlier", [False, True])
def test_they_are_the_ridge_regression_of_the_known_values(sees_earlier: bool) -> None:
    x = planes()
    kernels = causal_kernels(((part, part[:, :2]) for part in x.split(7)), RADIUS, RIDGE, sees_earlier)
    padded = causal_pad(x, RADIUS)
    for c in range(2):
        known = [(p, r, s) for p in range(3) for r in range(3) for s in range(5) if (r, s) < (2, 2)] + [(2, 2, 2)]
        known += [(0, 2, 2)] if sees_earlier and c == 1 else []
        columns = [padded[:, p, r : r + 6, s : s + 7].flatten() for p, r, s in known]
        design = torch.stack(columns, dim=1)
        penalty = RIDGE * len(design) * torch.eye(len(known), dtype=torch.float64)
        expected = torch.zeros_like(kernels[c])
        weights = torch.linalg.solve(design.T @ design + penalty, design.T @ x[:, c].flatten())
        for place, weight in zip(known, weights, strict=True):
            expected[place] = weight
        torch.testing.assert_close(kernels[c], expected, rtol=0, atol=1e-9)


def test_a_kernel_is_applied_by_a_convolution_of_the_padded_planes() -> None:
    x = planes(2)
    kernels = causal_kernels([(x, x[:, :2])], RADIUS, RIDGE, sees_earlier=True)
    changed = x.clone()
    changed[:, :2, 3, 4:] += 5
    changed[:, :2, 4:] += 5
    before, after = (F.conv2d(causal_pad(each, RADIUS), kernels) for each in (x, changed))
    assert before.shape == (2, 2, 6, 7)
    torch.testing.assert_close(after[:, 0, :3], before[:, 0, :3], rtol=0, atol=0)
    torch.testing.assert_close(after[:, 0, 3, :5], before[:, 0, 3, :5], rtol=0, atol=1e-12)
    assert bool((after[:, 1, 3, 4] != before[:, 1, 3, 4]).all())  # the second channel sees the first one's pixel


def test_nothing_to_fit_to_is_refused() -> None:
    with pytest.raises(ValueError, match="no examples"):
        causal_kernels([], RADIUS, RIDGE, sees_earlier=False)
