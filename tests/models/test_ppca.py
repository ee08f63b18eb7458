from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA

from dgm.distributions.gaussian import image_moments
from dgm.models.multivariate_gaussian import MultivariateGaussian, MultivariateGaussianConfig
from dgm.models.ppca import PPCA, PPCAConfig, em_ladder, ladder
from dgm.seeds import Stream, generator_for
from dgm.types import ImageSpec
from dgm.units import nats_to_bits_per_subpixel
from tests.models.fitted import correlated_images

SPEC = ImageSpec(channels=3, height=2, width=2, levels=64)
IMAGES = correlated_images(400, SPEC)


def fitted(num_components: int, method: str = "closed_form", num_iterations: int = 0) -> PPCA:
    config = PPCAConfig.model_validate({"num_components": num_components, "method": method, "num_fit_images": None})
    model = PPCA(SPEC, config)
    model.start(IMAGES, generator_for(0))
    for iteration in range(num_iterations):
        model.iterate(IMAGES, iteration, generator_for(0, iteration))
    model.finish(IMAGES)
    return model


def mean_bits(model: PPCA) -> float:
    nats = model.log_density(IMAGES.double() + 0.5)
    return float(-nats_to_bits_per_subpixel(nats.mean(), SPEC))


@pytest.mark.parametrize("num_components", [1, 4, 11])
def test_density_is_scipys(num_components: int) -> None:
    model = fitted(num_components)
    covariance = model.loadings @ model.loadings.T + model.noise_variance * torch.eye(12, dtype=torch.float64)
    oracle = multivariate_normal(model.mean.numpy(), covariance.numpy())  # type: ignore[arg-type]
    x = IMAGES.double() + 0.25
    expected = oracle.logpdf(x.flatten(1).numpy())
    np.testing.assert_allclose(model.log_density(x).numpy(), expected, atol=1e-7)


def test_closed_form_is_scikit_learns() -> None:
    """Oracle: PCA.score_samples on data whose sample covariance is that of the integers plus I/12."""
    covariance = np.cov(IMAGES.flatten(1).numpy().T, bias=True) + np.eye(12) / 12
    points = np.concatenate([np.linalg.cholesky(covariance).T, -np.linalg.cholesky(covariance).T]) * np.sqrt(12)
    oracle = PCA(n_components=4, svd_solver="full").fit(points * np.sqrt(23 / 24))  # its covariance divides by n - 1
    x = IMAGES.flatten(1).double().numpy() + 0.25
    mean = IMAGES.flatten(1).double().numpy().mean(axis=0) + 0.5
    expected = oracle.score_samples(x - mean)
    actual = fitted(4).log_density(torch.from_numpy(x).view(-1, *SPEC.shape))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9)


def test_all_but_one_component_is_the_full_gaussian() -> None:
    gaussian = MultivariateGaussian(SPEC, MultivariateGaussianConfig(num_fit_images=None))
    gaussian.start(IMAGES, generator_for(0))
    x = IMAGES.double() + 0.25
    torch.testing.assert_close(fitted(11).log_density(x), gaussian.log_density(x), rtol=0, atol=1e-6)


def test_em_climbs_to_the_closed_form() -> None:
    model = PPCA(SPEC, PPCAConfig(num_components=4, method="em", num_fit_images=None))
    model.start(IMAGES, generator_for(0))
    nats = [model.iterate(IMAGES, i, generator_for(0, i)) for i in range(200)]
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(nats))
    assert mean_bits(model) == pytest.approx(mean_bits(fitted(4)), abs=1e-4)


def test_one_iteration_is_the_textbooks_e_and_m_step() -> None:
    """Oracle: posterior means and covariances of z for points whose covariance is that of the dequantized images."""
    model = PPCA(SPEC, PPCAConfig(num_components=3, method="em", num_fit_images=None))
    model.start(IMAGES, generator_for(0))
    W, variance = model.loadings.clone(), model.noise_variance.clone()
    covariance = np.cov(IMAGES.flatten(1).numpy().T, bias=True) + np.eye(12) / 12
    points = torch.from_numpy(np.linalg.cholesky(covariance).T * np.sqrt(12))
    posterior_covariance = variance * torch.linalg.inv(W.T @ W + variance * torch.eye(3, dtype=torch.float64))
    z = points @ W @ posterior_covariance / variance
    zz = z.T @ z + 12 * posterior_covariance
    new_W = points.T @ z @ torch.linalg.inv(zz)
    residual = points.square().sum() - 2 * (z * (points @ new_W)).sum() + (zz * (new_W.T @ new_W)).sum()
    model.iterate(IMAGES, 0, generator_for(0, 0))
    torch.testing.assert_close(model.loadings, new_W, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(model.noise_variance, residual / 144, rtol=1e-8, atol=0)


def test_a_resumed_em_ends_bit_identical() -> None:
    whole = fitted(3, "em", 6)
    model = PPCA(SPEC, PPCAConfig(num_components=3, method="em", num_fit_images=None))
    model.start(IMAGES, generator_for(0))
    for iteration in range(3):
        model.iterate(IMAGES, iteration, generator_for(0, iteration))
    resumed = PPCA(SPEC, model.config)
    resumed.load_state_dict(copy.deepcopy(model.state_dict()))
    for iteration in range(3, 6):
        resumed.iterate(IMAGES, iteration, generator_for(0, iteration))
    assert all(torch.equal(a, resumed.state_dict()[name]) for name, a in whole.state_dict().items())


def test_the_reported_likelihood_is_that_of_the_images_in_expectation_over_noise() -> None:
    model = PPCA(SPEC, PPCAConfig(num_components=3, method="em", num_fit_images=None))
    model.start(IMAGES, generator_for(0))
    before = copy.deepcopy(model)
    nats = model.iterate(IMAGES, 0, generator_for(0, 0))
    covariance = before.loadings @ before.loadings.T + before.noise_variance * torch.eye(12, dtype=torch.float64)
    centre = before.log_density(IMAGES.double() + 0.5).mean()
    assert nats == pytest.approx(float(centre - torch.linalg.inv(covariance).trace() / 24), abs=1e-8)


def test_the_ladder_is_each_fit_at_once() -> None:
    x = IMAGES[:50].double() + 0.25
    nats = ladder(image_moments(IMAGES), x, [1, 4, 11], chunk_size=20)
    expected = torch.stack([fitted(q).log_density(x) for q in (1, 4, 11)], dim=1)
    torch.testing.assert_close(nats, expected, rtol=0, atol=1e-6)


def test_the_em_ladder_is_each_fit_bit_by_bit() -> None:
    x = IMAGES[:50].double() + 0.25
    for q, nats in em_ladder(SPEC, image_moments(IMAGES), x, [1, 4], 5, seed=3).items():
        model = PPCA(SPEC, PPCAConfig(num_components=q, method="em", num_fit_images=None))
        model.start(IMAGES, generator_for(3, Stream.PREPARATION))
        for iteration in range(5):
            model.iterate(IMAGES, iteration, generator_for(0))
        assert torch.equal(nats, model.log_density(x))


def test_rotating_the_components_changes_nothing() -> None:
    model = fitted(4)
    x = IMAGES.double() + 0.25
    expected = model.log_density(x)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator_for(1), dtype=torch.float64))
    model.loadings.copy_(model.loadings @ rotation)
    torch.testing.assert_close(model.log_density(x), expected, rtol=0, atol=1e-8)


def test_samples_have_the_models_covariance() -> None:
    model = fitted(4)
    x = model.sample_density(40000, generator_for(1), temperature=1.0).flatten(1)
    covariance = model.loadings @ model.loadings.T + model.noise_variance * torch.eye(12, dtype=torch.float64)
    scale = covariance.diagonal().sqrt()
    error = (torch.cov(x.T) - covariance) / torch.outer(scale, scale)
    assert float(error.abs().max()) < 0.04
    assert float(((x.mean(dim=0) - model.mean) / scale).abs().max()) < 0.03


def test_refuses_as_many_components_as_dimensions_and_iterations_of_a_closed_form() -> None:
    with pytest.raises(ValueError, match="num_components: 12 must be below 12"):
        PPCA(SPEC, PPCAConfig(num_components=12, method="closed_form", num_fit_images=None))
    with pytest.raises(TypeError, match="num_iterations to 0"):
        fitted(2, "closed_form", 1)
