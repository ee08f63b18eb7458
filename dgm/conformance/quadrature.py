"""A density over two sub-pixels, integrated on a grid: its whole mass, its mass in each image's cell, Jensen's gap.

Source: Theis, van den Oord & Bethge (2016), arXiv 1511.01844, section 3.1: the mean log-density over a cell is at most
the log of the cell's mass, and the masses of all cells sum to at most one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgm.conformance.checks import ERRORS, Finding, all_images
from dgm.model_api.contracts import DensityModel
from dgm.seeds import generator_for

POINTS_AT_ONCE = 20_000
LARGEST_ERROR = 0.01  # of a sum over the grid


@torch.no_grad()
def grid_density(model: DensityModel, axis: Tensor) -> Tensor:
    """The density on a grid, zero where it is undefined outside the cube of images. Shapes: (P,) -> (P, P)."""
    x = torch.cartesian_prod(axis, axis)
    log_density = torch.cat([model.log_density(part.view(-1, *model.spec.shape)) for part in x.split(POINTS_AT_ONCE)])
    is_image = ((x >= 0) & (x < model.spec.levels)).all(dim=1)
    log_density = torch.where(is_image | log_density.isfinite(), log_density.double(), -torch.inf)
    return log_density.exp().view(len(axis), len(axis))


def integrates_to_one_on_a_grid(model: DensityModel, num_points: int = 160) -> Finding:
    """The integral over the plane of two sub-pixels; the grid is dense in the cube and reaches far beyond it."""
    t = (torch.arange(num_points, dtype=torch.float64) + 0.5) * 2 / num_points - 1
    axis = model.spec.levels * (0.5 + t / (1 - t**2))
    weights = model.spec.levels * (1 + t**2) / (1 - t**2) ** 2 * (2 / num_points)
    total = float(weights @ grid_density(model, axis) @ weights)
    return Finding("integrates to one on a grid", abs(total - 1) < LARGEST_ERROR, f"integral {total:.4f}")


@torch.no_grad()
def dequantization_is_a_bound(model: DensityModel, num_draws: int = 100, points_per_level: int = 16) -> Finding:
    """The mean log-density with uniform noise is that of the cell, at most its log-mass; they sum to at most one.

    Of a model of two sub-pixels. What `log_likelihood` says of every image is compared with the grid.
    """
    levels, images = model.spec.levels, all_images(model.spec)
    axis = (torch.arange(levels * points_per_level, dtype=torch.float64) + 0.5) / points_per_level
    density = grid_density(model, axis).view(levels, points_per_level, levels, points_per_level)
    cells = density.permute(0, 2, 1, 3).reshape(levels * levels, -1)  # in the order of all_images
    log_mass, mean_log = cells.mean(dim=1).log(), cells.log().mean(dim=1)
    draws = torch.stack([model.log_likelihood(images, generator_for(6, draw)).nats for draw in range(num_draws)])
    bound, error = draws.mean(dim=0), draws.std(dim=0) / num_draws**0.5
    slack = ERRORS * error + LARGEST_ERROR
    total = float(bound.exp().sum())
    off = float(((bound - mean_log).abs() / slack).max())
    gap = float((log_mass - bound).min())
    holds = off < 1 and bool((bound <= log_mass + slack).all()) and total <= 1 + LARGEST_ERROR
    detail = f"{off:.2f} of the error allowed from the cell's mean, Jensen's gap from {gap:.3f} nats, sum {total:.4f}"
    return Finding("dequantization is a bound", holds, detail)
