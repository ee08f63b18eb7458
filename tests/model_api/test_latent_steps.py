"""The steps of bits-back coding are those of the model's own bound: same noise, same importance weight."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgm.distributions.diagonal_gaussian import DiagonalGaussian, standard_noise
from dgm.distributions.precision import sum_per_image
from dgm.families.unrolled import UnrolledModel
from dgm.model_api.contracts import LatentVariableModel, Model
from dgm.model_api.latent_steps import HasLatentSteps, Posterior, can_compress
from dgm.models.vae.model import VAE
from dgm.models.vae_iaf.model import VAEIAF
from dgm.registry import MODELS, model_class
from dgm.seeds import generator_for
from tests.tiny import SMALL, random_images, tiny_model

CODED = [name for name in sorted(MODELS) if issubclass(model_class(name), HasLatentSteps)]


def steps_model(name: str) -> tuple[LatentVariableModel, HasLatentSteps]:
    model = tiny_model(name, SMALL)
    assert isinstance(model, LatentVariableModel) and isinstance(model, HasLatentSteps)
    return model, model


def settled(posterior: Posterior, noise: Tensor) -> Tensor:
    """Latents made of the noise, each with the Gaussian that those before it leave to it."""
    z = torch.zeros_like(noise)
    for _ in range(noise[0].numel() + 1):
        mean, log_std = posterior(z)
        z = mean + log_std.exp() * noise
    return z


def noise_of(model: LatentVariableModel) -> Tensor:
    """What the model draws for three images at seed 7. Shapes: -> (steps, 3, ...)."""
    if isinstance(model, VAE):
        return standard_noise(
            (1, 3, *model.latent_steps(1).prior()[0].shape[1:]), generator_for(7), torch.zeros(1).double()
        )
    assert isinstance(model, UnrolledModel | VAEIAF)
    return model.noise(3, generator_for(7))


def log_density(gaussian: tuple[Tensor, Tensor], z: Tensor) -> Tensor:
    return sum_per_image(DiagonalGaussian(*gaussian).log_density(z))


def test_all_latent_variable_models_are_coded() -> None:
    assert sorted(name for name in MODELS if issubclass(model_class(name), LatentVariableModel)) == CODED
    assert {name for name in MODELS if can_compress(model_class(name))} > set(CODED)
    assert not can_compress(Model)


@pytest.mark.parametrize("name", CODED)
@torch.no_grad()
def test_the_steps_give_the_importance_weight_of_the_model(name: str) -> None:
    model, stepping = steps_model(name)
    images = random_images(SMALL, 3, seed=5)
    expected = model.log_weights(images, generator_for(7))
    steps = stepping.latent_steps(3, images)
    total, latents = torch.zeros(3, dtype=torch.float64), list[Tensor]()
    for noise in noise_of(model):
        prior = steps.prior()
        posterior = steps.posterior()
        z = settled(posterior, noise)
        total += log_density(prior, z) - log_density(posterior(z), z)
        latents.append(z)
        steps.push(z)
    log_pmf = steps.log_pmf()
    assert torch.allclose(log_pmf.exp().sum(dim=-1), torch.ones(images.shape, dtype=torch.float64))
    total += sum_per_image(log_pmf.gather(-1, images.long().unsqueeze(-1)).squeeze(-1))
    assert torch.allclose(total, expected, rtol=1e-9)

    blind = stepping.latent_steps(3)
    for z in latents:
        with pytest.raises(ValueError, match="a posterior needs the images"):
            blind.posterior()
        blind.push(z)
    assert torch.equal(blind.log_pmf(), log_pmf)
