"""Parallel sampling of an autoregressive model: all sub-pixels at once, again and again until none changes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dgm.model_api.ancestral import invert_distribution
from dgm.model_api.contracts import AutoregressiveModel
from dgm.types import Images


def sample_by_fixed_point(model: AutoregressiveModel, uniforms: Tensor, temperature: float = 1.0) -> tuple[Images, int]:
    """The images that ancestral sampling draws from the same `uniforms`, and the number of network passes.

    Position t is right after at most t + 1 passes, since it depends on earlier positions only.
    Shapes: uniforms (N, D) in [0, 1), position t of the order in column t -> uint8 (N, C, H, W).
    Source: Song et al. (2021), arXiv 2002.03629, Jacobi iteration.
    """
    images = torch.zeros(len(uniforms), *model.spec.shape, dtype=torch.uint8, device=uniforms.device)
    for num_passes, drawn in enumerate(fixed_point_passes(model, uniforms, temperature), start=1):
        if torch.equal(drawn, images):
            return images, num_passes
        images = drawn
    raise RuntimeError("no fixed point after D + 1 passes: the model is not causal in its order")


@torch.no_grad()
def fixed_point_passes(model: AutoregressiveModel, uniforms: Tensor, temperature: float = 1.0) -> Iterator[Images]:
    """The images after each pass, D + 1 of them: every sub-pixel drawn anew given the previous pass's images."""
    order = model.order().to(uniforms.device)
    by_subpixel = torch.empty_like(uniforms)
    by_subpixel[:, order] = uniforms
    images = torch.zeros(len(uniforms), *model.spec.shape, dtype=torch.uint8, device=uniforms.device)
    for _ in range(model.spec.num_subpixels + 1):
        log_pmf = model.log_pmf(images)
        images = invert_distribution(log_pmf, by_subpixel.view(images.shape), temperature).to(torch.uint8)
        yield images
