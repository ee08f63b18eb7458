"""Temperature 0 leaves nothing to chance, and small temperatures come close to it without overflow."""

from __future__ import annotations

import pytest
import torch

from dgm.model_api.ancestral import invert_distribution
from dgm.registry import MODELS
from dgm.types import ImageSpec
from tests.tiny import tiny_model

LOG_PMF = torch.tensor([[0.1, 0.0, 0.6, 0.3], [0.7, 0.1, 0.1, 0.1]], dtype=torch.float64).log()


@pytest.mark.parametrize("temperature", [0.0, 1e-320, 1e-300, 1e-3])
@pytest.mark.parametrize("uniform", [0.0, 0.5, 0.999999])
def test_the_most_probable_level_is_taken(temperature: float, uniform: float) -> None:
    uniforms = torch.full((2,), uniform, dtype=torch.float64)
    assert invert_distribution(LOG_PMF, uniforms, temperature).tolist() == [2, 0]


def test_a_temperature_between_is_a_power_of_the_probabilities() -> None:
    uniforms = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    drawn = invert_distribution(LOG_PMF[:1].expand(1000, -1), uniforms, 0.5)
    expected = torch.tensor([0.01, 0.0, 0.36, 0.09]) / 0.46 * 1000
    assert (torch.bincount(drawn, minlength=4) - expected).abs().max() <= 1


@pytest.mark.parametrize("name", MODELS)
def test_every_model_draws_one_image_at_temperature_0_whatever_the_seed(name: str) -> None:
    spec = ImageSpec(3, 4, 4, levels=4)
    model = tiny_model(name, spec)
    images = [model.sample(2, torch.Generator().manual_seed(seed), 0.0) for seed in (0, 1)]
    assert torch.equal(images[0], images[1])
