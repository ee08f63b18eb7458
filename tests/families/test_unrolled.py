"""What is made of one pass over the steps, by hand: bound, loss, weights, temperature, counted components."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.distributions.discretized_logistic import levels_from_unit
from dgm.families.unrolled import UnrolledModel
from dgm.nets.patch_pca import PatchPCA
from dgm.seeds import generator_for
from dgm.types import Images, ImageSpec
from tests.tiny import random_images

SPEC = ImageSpec(channels=1, height=2, width=2, levels=256)
MEAN = 0.3


class NoConfig(Config):
    """Nothing to set."""


class TwoSteps(UnrolledModel):
    """Costs that are simple functions of the noise; the canvas is MEAN plus a tenth of the noise of both steps."""

    config_type = NoConfig

    def __init__(self, log_scale: float = 0.0) -> None:
        super().__init__(SPEC, NoConfig())
        self.log_scale = nn.Parameter(torch.full((1, 1, 1), log_scale, dtype=torch.float64))

    def noise(self, num_images: int, generator: torch.Generator) -> Tensor:
        return torch.randn(2, num_images, 4, generator=generator, dtype=torch.float64)

    def unroll(self, images: Images, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, second = noise[..., 0]
        kl, log_ratio = torch.stack([first**2, second**2], dim=1), torch.stack([first, second], dim=1)
        return -images.double().sum(dim=(1, 2, 3)) + self.log_scale.sum(), kl, log_ratio

    def generate(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean = MEAN + 0.1 * noise.sum(dim=0).view(-1, *SPEC.shape)
        return mean, self.log_scale.expand_as(mean)


def test_bound_loss_and_weight_of_one_pass() -> None:
    model, images = TwoSteps(), random_images(SPEC, 5)
    first, second = model.noise(5, generator_for(0))[..., 0]
    reconstruction = -images.double().sum(dim=(1, 2, 3))
    bound = reconstruction - first**2 - second**2
    result = model.log_likelihood(images, generator_for(0))
    assert list(result.terms) == ["reconstruction", "kl_step_01", "kl_step_02"]
    assert torch.allclose(result.terms["kl_step_02"], -(second**2))
    assert torch.allclose(result.nats, bound)
    assert torch.allclose(model.log_weights(images, generator_for(0)), reconstruction + first + second)
    objective = model.objective(images, generator_for(0), 0.0)
    assert torch.allclose(objective.loss, -bound)
    assert torch.allclose(objective.nats, bound)
    assert objective.loss.requires_grad
    assert not objective.nats.requires_grad


def test_temperature_scales_the_latents_and_the_likelihood() -> None:
    for temperature in (1.0, 0.5):
        drawn = TwoSteps(log_scale=-20.0).sample(50, generator_for(0), temperature)
        noise = TwoSteps().noise(50, generator_for(0)).sum(dim=0).view(-1, *SPEC.shape)
        assert torch.equal(drawn, levels_from_unit(MEAN + 0.1 * temperature * noise, SPEC.levels).to(torch.uint8))
    cold = TwoSteps(log_scale=0.0).sample(50, generator_for(0), 1e-9)
    assert torch.equal(cold, levels_from_unit(torch.full_like(cold, MEAN, dtype=torch.float64), 256).to(torch.uint8))


def test_principal_components_are_counted_where_there_are_any() -> None:
    model = TwoSteps()
    assert model.num_parameters() == 1
    model.linear = PatchPCA(SPEC, 2, 3)
    assert model.num_parameters() == 1 + 4 + 4 * 3 + 3 + 1  # mean, directions, variances, variance of the noise
