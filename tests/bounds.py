"""What a latent-variable model's bounds must satisfy where the exact likelihood is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dgm.model_api import LatentVariableModel
from dgm.seeds import generator_for

NUM_DRAWS = 3000


def assert_bound_holds(model: LatentVariableModel, images: Tensor, exact: Tensor) -> None:
    """The one-sample bound below log P, tighter with more samples, and weights that average to P.

    Shapes: images: all that there are, uint8 (N, C, H, W); exact: their log P, (N,).
    """
    assert float(exact.exp().sum()) == pytest.approx(1.0, abs=1e-6)
    many = images.repeat(NUM_DRAWS, 1, 1, 1)
    with torch.no_grad():
        elbo = model.log_likelihood(many, generator_for(0)).nats.view(NUM_DRAWS, -1)
        weights = model.log_weights(many, generator_for(0)).view(NUM_DRAWS, -1)
    error = (elbo - weights).std(dim=0) / NUM_DRAWS**0.5
    assert bool(((elbo - weights).mean(dim=0).abs() < 5 * error).all())  # closed-form KL against log q - log p
    assert bool((elbo.mean(dim=0) < exact).all())
    bounds = [(weights.view(-1, k, len(images)).logsumexp(dim=1) - math.log(k)).mean(dim=0) for k in (1, 5, 50)]
    assert bool((bounds[0] < bounds[1]).all())
    assert bool((bounds[1] < bounds[2]).all())
    assert bool((bounds[2] < exact + 0.02).all())
    ratios = (weights - exact).exp()  # their mean is 1, whatever the posterior
    error = ratios.std(dim=0) / NUM_DRAWS**0.5
    assert bool(((ratios.mean(dim=0) - 1).abs() < 5 * error).all())
    assert float(error.max()) < 0.1
