"""What latent-variable models must satisfy: bounds and samples by the exact likelihood, autocast."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dgm.model_api.contracts import LatentVariableModel
from dgm.seeds import generator_for

NUM_DRAWS = 3000
NUM_SAMPLES = 20000


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


def assert_samples_follow(model: LatentVariableModel, exact: Tensor) -> None:
    """Each image is drawn about as often as its probability says. Shapes: exact: log P of tests.tiny.all_images."""
    values = model.sample(NUM_SAMPLES, generator_for(0)).long().flatten(1)
    place_values = model.spec.levels ** torch.arange(values.shape[1]).flip(0)
    counts = torch.bincount(values @ place_values, minlength=len(exact)).double()
    expected = NUM_SAMPLES * exact.exp()
    assert bool(((counts - expected).abs() < 5 * expected.sqrt() + 3).all())


def assert_autocast_changes_little(model: LatentVariableModel, images: Tensor, relative_tolerance: float) -> None:
    """The bound of each image, with bfloat16 where autocast puts it, is that of float32."""
    full = model.log_likelihood(images, generator_for(0)).nats
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.log_likelihood(images, generator_for(0)).nats
    assert torch.allclose(full, half, rtol=relative_tolerance)
