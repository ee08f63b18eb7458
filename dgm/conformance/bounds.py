"""What must hold of importance-weighted bounds: with many samples they are the probability, and they rise on the way.

Source: Burda, Grosse & Salakhutdinov (2016), arXiv 1509.00519, theorem 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dgm.conformance.checks import ERRORS, LARGEST_RELATIVE_ERROR, Estimate, Finding, all_images
from dgm.model_api.contracts import LatentVariableModel
from dgm.seeds import generator_for


@torch.no_grad()
def many_samples_sum_to_one(model: LatentVariableModel, num_samples: int = 400) -> Finding:
    """The sum over all images of a tiny size of exp(importance-weighted bound) is one within two percent."""
    images = all_images(model.spec)
    total = float(model.importance_weighted(images, generator_for(7), num_samples).nats.exp().sum())
    holds = abs(total - 1) < LARGEST_RELATIVE_ERROR
    return Finding("many samples sum to one", holds, f"sum {total:.4f} with {num_samples} samples")


@torch.no_grad()
def bounds_rise(model: LatentVariableModel, samples: Sequence[int] = (1, 4, 16), num_draws: int = 40) -> Finding:
    """More samples never loosen the bound: its mean over all images of a tiny size, within its Monte-Carlo error."""
    images = all_images(model.spec)

    def bounds(num_samples: int) -> Tensor:
        """Shapes: -> (num_draws,)."""
        seeds = [generator_for(8, draw, num_samples) for draw in range(num_draws)]
        return torch.stack([model.importance_weighted(images, seed, num_samples).nats.mean() for seed in seeds])

    estimates = [Estimate.of(bounds(num_samples)) for num_samples in samples]
    holds = all(
        after.mean - before.mean >= -ERRORS * (after.error**2 + before.error**2) ** 0.5
        for before, after in pairwise(estimates)
    )
    pairs = zip(samples, estimates, strict=True)
    return Finding("bounds rise", holds, ", ".join(f"{count}: {estimate}" for count, estimate in pairs) + " nats")
