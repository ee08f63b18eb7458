"""NICE: its density is one, its start is the linear baseline, its size the published one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import integrate, stats

from dgm.errors import StageError
from dgm.models.nice import NICE, NICEConfig, logistic_log_scales
from dgm.seeds import generator_for
from dgm.types import CIFAR10, ImageSpec
from tests.tiny import random_images, tiny_model

SPEC = ImageSpec(1, 1, 2, levels=4)


def config_with(**changes: Any) -> NICEConfig:
    """The published one but for the changes."""
    published: dict[str, Any] = {
        "num_couplings": 4,
        "num_hidden_layers": 4,
        "num_hidden": 2000,
        "dropout": 0.1,
        "num_whitening_images": None,
        "has_mirrored_whitening": False,
        "num_scale_images": 2000,
    }
    return NICEConfig.model_validate(published | changes)


def test_the_density_integrates_to_one() -> None:
    model = tiny_model("nice", SPEC)
    assert isinstance(model, NICE)
    axis = torch.linspace(-60, 64, 901, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis).view(-1, 1, 1, 2)
    with torch.no_grad():
        density = model.log_density(grid).exp().view(901, 901).numpy()
    total = integrate.simpson(integrate.simpson(density, x=axis.numpy()), x=axis.numpy())
    assert total == pytest.approx(1.0, abs=1e-3)


def test_training_starts_at_whitened_data_under_a_logistic() -> None:
    spec = ImageSpec(3, 2, 2, levels=16)
    torch.manual_seed(0)
    images = (random_images(spec, 400).float() / 2 + 4 * torch.randn(400, 1, 1, 1)).clamp(0, 15).to(torch.uint8)
    model = NICE(spec, config_with(num_hidden_layers=1, num_hidden=8, dropout=0.0)).double().eval()
    model.prepare(images, generator_for(0))
    x = images.double() + 0.5
    flat = x.flatten(1).numpy()
    covariance = torch.cov(images.flatten(1).double().T, correction=0) + torch.eye(12) / 12
    values, vectors = torch.linalg.eigh(covariance)
    whitening = (vectors @ torch.diag(values**-0.5) @ vectors.T).numpy()
    h = (flat - (images.flatten(1).double().mean(dim=0) + 0.5).numpy()) @ whitening
    scale = model.log_scale.detach().exp().numpy()
    expected = stats.logistic.logpdf(h * scale).sum(axis=1) + model.log_scale.detach().sum().item()
    expected = expected - 0.5 * values.log().sum().item()
    with torch.no_grad():
        assert torch.allclose(model.log_density(x), torch.from_numpy(expected), atol=1e-8)


def test_mirrored_whitening_treats_an_image_and_its_mirror_image_alike() -> None:
    spec = ImageSpec(3, 2, 2, levels=16)
    images = random_images(spec, 50)
    model = NICE(spec, config_with(num_hidden=8, has_mirrored_whitening=True)).double().eval()
    model.prepare(images, generator_for(0))
    h, mirrored = (model._whiten(x.double() + 0.5).view_as(x) for x in (images, images.flip(-1)))
    assert torch.allclose(h, mirrored.flip(-1), atol=1e-10)


def test_scales_are_the_maximum_likelihood_of_scipy() -> None:
    h = torch.from_numpy(stats.logistic.rvs(scale=[0.5, 2.0], size=(4000, 2), random_state=0))
    found = logistic_log_scales(h)
    for column in range(2):
        _, scale = stats.logistic.fit(h[:, column].numpy(), floc=0.0)
        assert float(found[column]) == pytest.approx(-math.log(scale), abs=1e-4)


def test_samples_are_the_images_whose_latents_were_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whitening and couplings forward to h, then its quantiles as the uniforms: sampling has to come back to x."""
    spec = ImageSpec(3, 4, 4, levels=4)
    model = tiny_model("nice", spec)
    assert isinstance(model, NICE)
    x = 4 * torch.rand(5, *spec.shape, dtype=torch.float64)
    with torch.no_grad():
        h, log_det = model._whiten(x), torch.zeros(5)
        for coupling in model.couplings:
            h, log_det = coupling(h, log_det)
        uniforms = torch.sigmoid(h * model.log_scale.exp())
        monkeypatch.setattr(torch, "rand", lambda *_shape, **_settings: uniforms)
        assert torch.allclose(model.sample_density(5, generator_for(0), 1.0), x, atol=1e-6)
        cold = model.sample_density(5, generator_for(0), 0.0)
    assert torch.allclose(cold, cold[:1].expand_as(cold), atol=1e-9)


def test_a_coupling_that_cannot_be_inverted_is_named() -> None:
    model = tiny_model("nice", ImageSpec(3, 4, 4, levels=4))
    assert isinstance(model, NICE)
    with torch.no_grad():
        model.couplings[1].network[-1].bias.fill_(float("nan"))  # type: ignore[union-attr, index]
    with pytest.raises(StageError, match=r"layer 2 of the couplings \(AdditiveCoupling\) cannot be inverted"):
        model.sample(2, generator_for(0))


def test_the_published_size() -> None:
    with torch.device("meta"):
        model = NICE(CIFAR10, config_with())
    whitening = 3072 + 3072 * 3073 // 2
    assert model.num_parameters() - whitening == pytest.approx(72.617e6, rel=1e-4)
