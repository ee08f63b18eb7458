"""Real NVP: exact log-determinant through two scales, exact inverse, density of total mass one, published size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dgm.dequantization import dequantize
from dgm.errors import StageError
from dgm.models.real_nvp import RealNVP, RealNVPConfig
from dgm.nets.flow_layers import ActNorm, FlowBatchNorm
from dgm.seeds import generator_for
from dgm.types import CIFAR10, ImageSpec
from tests.tiny import random_images, tiny_model

SPEC = ImageSpec(3, 4, 4, levels=4)


@pytest.mark.parametrize("norm", ["batch_norm", "act_norm"])
def test_density_is_that_of_the_jacobian_of_the_whole_flow(norm: str) -> None:
    torch.manual_seed(0)
    config = RealNVPConfig(num_features=3, num_blocks=1, num_scales=2, norm=norm, margin=0.05, num_start_images=256)  # type: ignore[arg-type]
    model = RealNVP(SPEC, config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    x = 4 * torch.rand(1, *SPEC.shape, dtype=torch.float64)

    def latent(v: torch.Tensor) -> torch.Tensor:
        z, _ = model.logit(v, torch.zeros(1))
        parts = []
        for number, scale in enumerate(model.scales):
            for layer in scale:  # type: ignore[attr-defined]
                z, _ = layer(z, torch.zeros(1))
            if number == 0:
                z, factored = z.chunk(2, dim=1)
                parts.append(factored.flatten())
        return torch.cat([*parts, z.flatten()])

    jacobian = torch.func.jacrev(latent)(x).reshape(48, 48)
    z = latent(x)
    assert z.shape == (48,)
    expected = torch.linalg.slogdet(jacobian)[1] - 0.5 * (z**2 + math.log(2 * math.pi)).sum()
    with torch.no_grad():
        assert float(model.log_density(x)) == pytest.approx(float(expected), rel=1e-9)


def test_sampling_inverts_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("real_nvp", SPEC)
    assert isinstance(model, RealNVP)
    x = 4 * torch.rand(2, *SPEC.shape, dtype=torch.float64)
    noises = []
    with torch.no_grad():
        z, log_det = model.logit(x, torch.zeros(2))
        for number, scale in enumerate(model.scales):
            for layer in scale:  # type: ignore[attr-defined]
                z, log_det = layer(z, log_det)
            if number < len(model.scales) - 1:
                z, factored = z.chunk(2, dim=1)
                noises.append(factored)
        noises.append(z)
        monkeypatch.setattr(model, "_noise", lambda *_arguments: noises.pop())
        assert torch.allclose(model.sample_density(2, torch.Generator(), 1.0), x, atol=1e-8)
    assert not noises


@pytest.mark.parametrize("norm", ["batch_norm", "act_norm"])
def test_training_starts_with_every_norm_centred_and_scaled(norm: str) -> None:
    torch.manual_seed(0)
    config = RealNVPConfig(num_features=3, num_blocks=1, num_scales=2, norm=norm, margin=0.05, num_start_images=256)  # type: ignore[arg-type]
    model, images = RealNVP(SPEC, config).double().eval(), random_images(SPEC, 300)
    model.prepare(images, generator_for(0))
    outputs = []
    for layer in model.modules():
        if isinstance(layer, ActNorm | FlowBatchNorm):
            layer.register_forward_hook(lambda _layer, _inputs, output: outputs.append(output[0]))
    with torch.no_grad():
        model.log_density(dequantize(images, generator_for(1), torch.float64))
    assert len(outputs) == 10
    for output in outputs:
        assert float(output.mean(dim=(0, 2, 3)).abs().max()) < 0.1
        assert float((output.std(dim=(0, 2, 3)) - 1).abs().max()) < 0.1


def test_latents_are_drawn_with_the_temperature_as_deviation() -> None:
    model = tiny_model("real_nvp", SPEC)
    assert isinstance(model, RealNVP)
    noise = model._noise(500, (12, 2, 2), generator_for(0), 0.7)
    assert noise.shape == (500, 12, 2, 2)
    assert float(noise.std()) == pytest.approx(0.7, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.02)


def test_a_layer_that_cannot_be_inverted_is_named() -> None:
    """Forward all is finite: nothing but the way back shows it."""
    model = tiny_model("real_nvp", SPEC).float()
    assert isinstance(model, RealNVP)
    norm = model.scales[0][2]  # type: ignore[index]
    assert isinstance(norm, ActNorm)
    with torch.no_grad():
        norm.log_scale.fill_(-200.0)
    assert bool(model.log_likelihood(random_images(SPEC, 2), generator_for(0)).nats.isfinite().all())
    with pytest.raises(StageError, match=r"layer 3 of scale 1 \(ActNorm\) cannot be inverted"):
        model.sample(2, generator_for(0))


def test_the_density_integrates_to_one() -> None:
    spec = ImageSpec(1, 1, 2, levels=4)
    torch.manual_seed(0)
    config = RealNVPConfig(
        num_features=3, num_blocks=1, num_scales=1, norm="act_norm", margin=0.05, num_start_images=256
    )
    model = RealNVP(spec, config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    # the logit maps the margins outside of [0, levels) too: the mass is one over its whole domain
    low, high = -0.05 / 0.9 * 4, (1 + 0.05 / 0.9) * 4
    axis = torch.linspace(low, high, 102, dtype=torch.float64)  # smooth and zero at both ends: 1e-6 from the integral
    axis = (axis[1:] + axis[:-1]) / 2
    grid = torch.cartesian_prod(axis, axis).view(-1, 1, 1, 2)
    with torch.no_grad():
        density = model.log_density(grid).exp().numpy()
    assert float(np.sum(density)) * float(axis[1] - axis[0]) ** 2 == pytest.approx(1.0, abs=1e-5)


def test_image_sizes_that_do_not_divide_are_refused() -> None:
    config = RealNVPConfig(
        num_features=2, num_blocks=1, num_scales=3, norm="act_norm", margin=0.05, num_start_images=256
    )
    with pytest.raises(ValueError, match="divisible by 4, got 6 x 8"):
        RealNVP(ImageSpec(3, 6, 8, levels=4), config)


def test_the_published_size() -> None:
    config = RealNVPConfig(
        num_features=64, num_blocks=8, num_scales=2, norm="batch_norm", margin=0.05, num_start_images=256
    )
    with torch.device("meta"):
        assert RealNVP(CIFAR10, config).num_parameters() == pytest.approx(19.609e6, rel=0.01)
