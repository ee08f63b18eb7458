"""Linear prediction of every sub-pixel from earlier ones nearby: a least-squares start for linear links."""

from __future__ import annotations

import torch
from torch import Tensor

from dgm.types import ImageSpec

CHUNK_ROWS = 64  # regressions solved at a time


def neighbour_table(spec: ImageSpec, ranks: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Inputs of each regression: all channels of the pixels within `radius`, if of lower rank.

    Inputs and ranks are in raster order (dgm.nets.sequence). Shapes: ranks (D,) -> indices (D, P) int64, 0 where there
    is no such neighbour, and whether there is one, (D, P) bool.
    """
    channels, height, width = spec.shape
    steps = torch.arange(-radius, radius + 1)
    row_steps, column_steps, channel = (
        a.flatten() for a in torch.meshgrid(steps, steps, torch.arange(channels), indexing="ij")
    )
    position = torch.arange(spec.num_subpixels).unsqueeze(1)
    row = position // (channels * width) + row_steps
    column = position // channels % width + column_steps
    is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    indices = torch.where(is_inside, (row * width + column) * channels + channel, 0)
    ranks = ranks.cpu()
    return indices, is_inside & (ranks[indices] < ranks.unsqueeze(1))


def causal_regression(x: Tensor, ranks: Tensor, spec: ImageSpec, radius: int, ridge: float) -> tuple[Tensor, Tensor]:
    """Weights (D, D) and intercepts (D,) that predict each column of x from its neighbours of lower rank.

    The ridge is in units of x squared, per image. Shapes: x (N, D) in raster order, D = H * W * C; float32 or wider.
    """
    mean = x.mean(dim=0)
    covariance = covariance_of_near_rows(x - mean, spec, 2 * radius)
    indices, is_used = (table.to(x.device) for table in neighbour_table(spec, ranks, radius))
    weights = torch.zeros_like(covariance)
    for first in range(0, spec.num_subpixels, CHUNK_ROWS):
        index, used = indices[first : first + CHUNK_ROWS], is_used[first : first + CHUNK_ROWS]
        targets = torch.arange(first, first + len(index), device=x.device).unsqueeze(1)
        between = covariance[index.unsqueeze(2), index.unsqueeze(1)].double() * (used.unsqueeze(2) & used.unsqueeze(1))
        between.diagonal(dim1=1, dim2=2).add_(torch.where(used, ridge, 1.0))  # unused: 1 on the diagonal, solution 0
        solution = torch.linalg.solve(between, covariance[index, targets].double() * used)
        weights[first : first + len(index)].scatter_add_(1, index, solution.to(x.dtype))
    return weights, mean - weights @ mean


def covariance_of_near_rows(centred: Tensor, spec: ImageSpec, distance: int) -> Tensor:
    """Covariances of sub-pixels at most `distance` rows apart, zero elsewhere. Shapes: (N, D) -> (D, D)."""
    num_inputs, row_size = centred.shape[1], spec.width * spec.channels
    covariance = centred.new_zeros(num_inputs, num_inputs)
    for first in range(0, num_inputs, row_size):
        row, near = slice(first, first + row_size), slice(first, first + (distance + 1) * row_size)
        block = centred[:, row].T @ centred[:, near] / len(centred)
        covariance[row, near] = block
        covariance[near, row] = block.T
    return covariance
