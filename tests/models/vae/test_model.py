"""The VAE's bound: below the exact likelihood on images small enough to integrate, tight for the linear Gaussian one,
at that of probabilistic PCA before step 0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from dgm.config.parse import Config
from dgm.distributions.diagonal_gaussian import DiagonalGaussian
from dgm.distributions.discretized_logistic import discretized_logistic_log_pmf
from dgm.distributions.precision import sum_per_image
from dgm.model_api.contracts import LatentVariableModel
from dgm.models.vae.model import VAE, VAEConfig
from dgm.seeds import generator_for
from dgm.types import CIFAR10, Images, ImageSpec
from tests.bounds import assert_autocast_changes_little
from tests.tiny import SMALL, all_images, random_images, tiny_model

TOY = ImageSpec(1, 1, 2, levels=4)


def config_with(**changes: Any) -> VAEConfig:
    values: dict[str, Any] = {
        "features": [4],
        "stem_stride": 1,
        "num_blocks": 1,
        "num_latents": 1,
        "kl_warmup_fraction": 0.0,
        "correction_scale": 2.0,
        "num_start_images": 50,
    }
    return VAEConfig.model_validate(values | changes)


def toy_model() -> VAE:
    """Two latents in all, random weights."""
    torch.manual_seed(3)
    model = VAE(TOY, config_with()).double().eval()
    model.linear.noise_variance.fill_(0.2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def exact_log_prob(model: VAE, images: Images) -> Tensor:
    """log of the integral of N(z; 0, I) P(x | z) over a grid of z. Shapes: (N, 1, 1, 2) -> (N,)."""
    axis = torch.linspace(-7, 7, 141, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis).view(-1, 1, 1, 2)
    log_prior = sum_per_image(DiagonalGaussian.standard(z).log_density(z)) + 2 * math.log(0.1)
    with torch.no_grad():
        mean, log_scale = model.decode(z)
        log_pmf = discretized_logistic_log_pmf(mean, log_scale, TOY.levels)[:, 0, 0]
    first, second = images.long().flatten(1).T
    return torch.logsumexp(log_prior[:, None] + log_pmf[:, 0, first] + log_pmf[:, 1, second], dim=0)


def test_bound_is_below_the_exact_likelihood_and_samples_tighten_it() -> None:
    model, images = toy_model(), all_images(TOY)
    exact = exact_log_prob(model, images)
    assert float(exact.exp().sum()) == pytest.approx(1.0, abs=1e-9)
    many = images.repeat(2000, 1, 1, 1)
    with torch.no_grad():
        elbo = model.log_likelihood(many, generator_for(0)).nats.view(2000, -1).mean(dim=0)
        weights = model.log_weights(many, generator_for(1)).view(2000, -1)
    assert bool((elbo < exact).all())
    error = weights.std(dim=0) / len(weights) ** 0.5
    assert bool(((weights.mean(dim=0) - elbo).abs() < 6 * error).all())
    iw_50 = (weights.view(40, 50, -1).logsumexp(dim=1) - math.log(50)).mean(dim=0)
    assert bool((iw_50 > elbo).all())
    assert float((exact - iw_50).mean()) > 0
    assert torch.allclose(weights.logsumexp(dim=0) - math.log(2000), exact, atol=0.35)


def test_terms_are_negative_and_sum_to_the_bound() -> None:
    model = tiny_model("vae", SMALL)
    assert isinstance(model, VAE)
    with torch.no_grad():
        result = model.log_likelihood(random_images(SMALL, 5), generator_for(0))
    assert list(result.terms) == ["reconstruction", "kl_layer_01"]
    assert all(bool((term < 0).all()) for term in result.terms.values())
    assert torch.equal(result.nats, result.terms["reconstruction"] + result.terms["kl_layer_01"])


def test_warm_up_is_in_the_loss_and_never_in_the_measure() -> None:
    torch.manual_seed(0)
    model = VAE(SMALL, config_with(features=[4, 5], stem_stride=2, num_latents=6, kl_warmup_fraction=0.5)).double()
    images = random_images(SMALL, 4)
    model.prepare(images, generator_for(0))
    terms = model.bound_terms(images, generator_for(1))
    for progress, weight in [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (1.0, 1.0)]:
        objective = model.objective(images, generator_for(1), progress)
        assert torch.equal(objective.nats, terms["reconstruction"] + terms["kl_layer_01"])
        assert torch.allclose(objective.loss, -terms["reconstruction"] - weight * terms["kl_layer_01"])


def test_training_starts_at_the_bound_of_probabilistic_pca_of_patches() -> None:
    spec = ImageSpec(2, 16, 16, levels=256)
    generator = generator_for(0)
    mixing = torch.randn(8, 8, generator=generator, dtype=torch.float64) * torch.linspace(20, 3, 8).double()
    patches = 128 + torch.randn(200, 8, 8, 8, generator=generator, dtype=torch.float64) @ mixing.T
    x = torch.nn.functional.pixel_shuffle(patches.movedim(-1, 1), 2)
    images = x.round().clamp(0, 255).to(torch.uint8)
    model = VAE(spec, config_with(features=[3], stem_stride=2, num_latents=7, num_start_images=200)).double()
    model.prepare(images, generator)
    rows = torch.nn.functional.pixel_unshuffle(images.double(), 2).movedim(1, -1).reshape(-1, 8)
    covariance = torch.cov(rows.T, correction=0) + torch.eye(8, dtype=torch.float64) / 12
    gaussian_nats_per_patch = -0.5 * float(torch.linalg.slogdet(2 * math.pi * math.e * covariance)[1])
    with torch.no_grad():
        elbo = model.log_likelihood(images, generator).nats
    # the likelihood is logistic and not Gaussian: its entropy is 0.007 nats a sub-pixel below; clamping adds a little
    assert float(elbo.mean()) / spec.num_subpixels == pytest.approx(gaussian_nats_per_patch / 8, abs=0.06)


def test_images_in_a_batch_do_not_touch_each_other() -> None:
    model = tiny_model("vae", SMALL)
    assert isinstance(model, VAE)
    images = random_images(SMALL, 6)
    with torch.no_grad():
        together, alone = model.encode(images), model.encode(images[2:3])
        assert torch.allclose(together.mean[2:3], alone.mean, atol=1e-12)
        z = together.sample(generator_for(0))
        mean, log_scale = model.decode(z)
        assert torch.allclose(mean[2:3], model.decode(z[2:3])[0], atol=1e-12)
        assert torch.allclose(log_scale[2:3], model.decode(z[2:3])[1], atol=1e-12)


def test_autocast_changes_little_and_stays_finite() -> None:
    model = tiny_model("vae", SMALL).float()
    assert isinstance(model, VAE)
    assert_autocast_changes_little(model, random_images(SMALL, 4), 0.1)


def test_grid_of_8_by_8_by_32_latents_on_cifar() -> None:
    config = config_with(features=[64, 128, 256], num_blocks=2, num_latents=32)
    model = VAE(CIFAR10, config)
    with torch.no_grad():
        posterior = model.encode(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert posterior.mean.shape == (1, 32, 8, 8)
    with pytest.raises(ValueError, match="do not tile"):
        VAE(ImageSpec(3, 6, 6, levels=256), config)


class NoConfig(Config):
    """Nothing to set."""


class LinearGaussianVAE(LatentVariableModel):
    """x = W z + noise with an arbitrary diagonal q: the bound's arithmetic against a closed form."""

    config_type = NoConfig
    noise_std = 0.7

    def __init__(self, loadings: Tensor, is_exact: bool) -> None:
        super().__init__(ImageSpec(1, 2, 3, levels=4), NoConfig())
        self.loadings = torch.nn.Buffer(loadings)
        self.is_exact = is_exact

    def posterior(self, x: Tensor) -> DiagonalGaussian:
        precision = self.loadings.T @ self.loadings / self.noise_std**2 + torch.eye(2, dtype=torch.float64)
        mean = x @ self.loadings @ torch.linalg.inv(precision) / self.noise_std**2
        log_std = -0.5 * precision.diagonal().log().expand_as(mean)
        return DiagonalGaussian(mean, log_std) if self.is_exact else DiagonalGaussian(mean + 0.2, log_std + 0.3)

    def likelihood(self, images: Images, z: Tensor) -> Tensor:
        mean = z @ self.loadings.T
        noise = DiagonalGaussian(mean, torch.full_like(mean, math.log(self.noise_std)))
        return sum_per_image(noise.log_density(images.double().flatten(1)))

    def bound_terms(self, images: Images, generator: torch.Generator) -> Mapping[str, Tensor]:
        q = self.posterior(images.double().flatten(1))
        spread = (self.loadings**2 @ q.log_std.exp().T ** 2).sum(dim=0) / (2 * self.noise_std**2)
        at_mean = self.likelihood(images, q.mean)  # the expectation of a quadratic: at the mean, less half the spread
        return {
            "reconstruction": at_mean - spread,
            "kl_layer_01": -sum_per_image(q.kl(DiagonalGaussian.standard(q.mean))),
        }

    def log_weights(self, images: Images, generator: torch.Generator) -> Tensor:
        q = self.posterior(images.double().flatten(1))
        z = q.sample(generator)
        return self.likelihood(images, z) + sum_per_image(
            DiagonalGaussian.standard(z).log_density(z) - q.log_density(z)
        )

    def sample(self, num_images: int, generator: torch.Generator, temperature: float = 1.0) -> Images:
        raise NotImplementedError


@pytest.fixture
def orthogonal_loadings() -> Tensor:
    directions = torch.linalg.qr(torch.randn(6, 2, generator=generator_for(0), dtype=torch.float64))[0]
    return directions * torch.tensor([2.0, 1.0], dtype=torch.float64)


def gaussian_evidence(loadings: Tensor, images: Images) -> Tensor:
    covariance = loadings @ loadings.T + LinearGaussianVAE.noise_std**2 * torch.eye(6, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(torch.zeros(6, dtype=torch.float64), covariance)
    return normal.log_prob(images.double().flatten(1))


def test_exact_posterior_makes_every_bound_the_evidence(orthogonal_loadings: Tensor) -> None:
    model = LinearGaussianVAE(orthogonal_loadings, is_exact=True)
    images = random_images(model.spec, 5)
    exact = gaussian_evidence(orthogonal_loadings, images)
    assert torch.allclose(model.log_likelihood(images, generator_for(0)).nats, exact, atol=1e-5)
    for count in (1, 2, 50):
        found = model.importance_weighted(images, generator_for(count), count)
        assert torch.allclose(found.nats, exact, atol=1e-5)
        assert found.method == f"importance-weighted ({count})"


def test_wrong_posterior_orders_the_bounds(orthogonal_loadings: Tensor) -> None:
    model = LinearGaussianVAE(orthogonal_loadings, is_exact=False)
    images = random_images(model.spec, 5)
    exact = gaussian_evidence(orthogonal_loadings, images)
    elbo = model.log_likelihood(images, generator_for(0)).nats
    many = images.repeat(2000, 1, 1, 1)

    def bound(count: int) -> Tensor:
        return model.importance_weighted(many, generator_for(count), count).nats.view(2000, 5).mean(dim=0)

    one, fifty = bound(1), bound(50)
    assert torch.allclose(one, elbo, atol=0.1)
    assert bool(((one < fifty) & (elbo < fifty) & (fifty < exact)).all())
