"""Small images that are like photographs, for models that are fitted to them."""

from __future__ import annotations

import torch

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
