"""Small images and checks that the tests of the fitted models share."""

from __future__ import annotations

import itertools

import torch

from dgm.model_api.ancestral import RecomputedConditionals
from dgm.model_api.contracts import AutoregressiveModel
from dgm.seeds import generator_for
from dgm.types import Images, ImageSpec

TINY = ImageSpec(channels=3, height=1, width=2, levels=3)
SMALL = ImageSpec(channels=3, height=4, width=5, levels=8)


def correlated_images(num_images: int, spec: ImageSpec, seed: int = 0) -> Images:
    """uint8 images whose neighbours and channels are alike, as in photographs."""
    generator = generator_for(seed, 0)
    walk = torch.randn(num_images, *spec.shape, generator=generator, dtype=torch.float64) * 0.4
    walk = walk.cumsum(dim=1).cumsum(dim=2).cumsum(dim=3)
    contrast = torch.rand(num_images, 1, 1, 1, generator=generator, dtype=torch.float64) + 0.3
    return (walk * contrast * spec.levels / 8 + spec.levels / 2).floor().clamp(0, spec.levels - 1).to(torch.uint8)


def every_image(spec: ImageSpec) -> Images:
    values = list(itertools.product(range(spec.levels), repeat=spec.num_subpixels))
    return torch.tensor(values, dtype=torch.uint8).view(-1, *spec.shape)


def total_probability(model: AutoregressiveModel) -> float:
    """Sum of P(image) over every image of the model's spec."""
    return float(model.log_prob(every_image(model.spec)).exp().sum())


def check_autoregressive(model: AutoregressiveModel, images: Images) -> None:
    """log_prob, log_pmf, the cached conditionals and the recomputed ones say the same within 1e-9."""
    log_pmf = model.log_pmf(images)
    chosen = log_pmf.gather(-1, images.long().unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(chosen.sum(dim=(1, 2, 3)), model.log_prob(images), rtol=0, atol=1e-9)
    torch.testing.assert_close(log_pmf.logsumexp(dim=-1), torch.zeros_like(chosen), rtol=0, atol=1e-9)
    cached, naive = model.conditionals(len(images)), RecomputedConditionals(model, len(images))
    unread = model.conditionals(len(images))  # pushed to without ever being asked
    flat = images.flatten(1).long()
    for index in model.order().tolist():
        expected = log_pmf.flatten(1, 3)[:, index]
        torch.testing.assert_close(cached.log_pmf(), expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(naive.log_pmf(), expected, rtol=0, atol=1e-9)
        if index == flat.shape[1] - 1:
            torch.testing.assert_close(unread.log_pmf(), expected, rtol=0, atol=1e-9)
        for conditionals in (cached, naive, unread):
            conditionals.push(flat[:, index])
