from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from dgm.distributions.gaussian import NotPositiveDefiniteError
from dgm.models.multivariate_gaussian import MultivariateGaussian, MultivariateGaussianConfig
from dgm.seeds import generator_for
from dgm.types import ImageSpec
from tests.models.fitted import TINY, correlated_images

SPEC = ImageSpec(channels=3, height=2, width=2, levels=16)


def fitted(spec, images, num_fit_images=None) -> MultivariateGaussian:
    model = MultivariateGaussian(spec, MultivariateGaussianConfig(num_fit_images=num_fit_images))
    model.start(images, generator_for(0))
    return model


def test_density_is_scipys_with_the_moments_of_dequantized_data() -> None:
    images = correlated_images(300, SPEC)
    integers = images.flatten(1).double().numpy()
    covariance = np.cov(integers, rowvar=False, bias=True) + np.eye(12) / 12
    oracle = multivariate_normal(integers.mean(axis=0) + 0.5, covariance)  # type: ignore[arg-type]
    x = integers + np.random.default_rng(0).random(integers.shape)
    nats = fitted(SPEC, images).log_density(torch.from_numpy(x).view(-1, *SPEC.shape))
    np.testing.assert_allclose(nats.numpy(), oracle.logpdf(x), atol=1e-9)


def test_mean_over_noise_has_its_closed_form() -> None:
    """E_u log p(v + u) = log p(v + 1/2) - tr(precision) / 24: what one noise draw of the report estimates."""
    images = correlated_images(300, SPEC)
    model = fitted(SPEC, images)
    precision = np.linalg.inv((model.factor @ model.factor.T).numpy())
    oracle = multivariate_normal(model.mean.numpy(), np.linalg.inv(precision))  # type: ignore[arg-type]
    centre = oracle.logpdf(images.flatten(1).numpy() + 0.5)
    expected = centre.mean() - np.trace(precision) / 24
    draws = torch.stack([model.log_likelihood(images, generator_for(s)).nats.mean() for s in range(200)])
    error = float(draws.std()) / 200**0.5
    assert abs(float(draws.mean()) - expected) < 4 * error < 0.05


def test_scaling_the_images_shifts_the_density_by_the_log_of_the_scale() -> None:
    images = correlated_images(100, TINY)
    model = fitted(TINY, images)
    x = images.double() + 0.25
    scaled = MultivariateGaussian(TINY, MultivariateGaussianConfig(num_fit_images=None))
    scaled.mean.copy_(model.mean / 256)
    scaled.factor.copy_(model.factor / 256)
    expected = model.log_density(x) + 6 * np.log(256)
    torch.testing.assert_close(scaled.log_density(x / 256), expected, rtol=0, atol=1e-9)


def test_maximum_likelihood_on_its_own_images() -> None:
    images = correlated_images(200, SPEC)
    model = fitted(SPEC, images)
    best = model.log_likelihood(images, generator_for(3)).nats.mean()
    model.factor.mul_(1.1)
    assert model.log_likelihood(images, generator_for(3)).nats.mean() < best


def test_samples_have_the_models_moments() -> None:
    images = correlated_images(300, SPEC)
    model = fitted(SPEC, images)
    x = model.sample_density(20000, generator_for(1), temperature=1.0).flatten(1)
    torch.testing.assert_close(x.mean(dim=0), model.mean, rtol=0, atol=0.15)
    torch.testing.assert_close(torch.cov(x.T), model.factor @ model.factor.T, rtol=0.1, atol=0.3)
    cold = model.sample_density(2000, generator_for(1), temperature=0.5).flatten(1)
    torch.testing.assert_close(cold.var(dim=0), x.var(dim=0) / 4, rtol=0.15, atol=0.0)


def test_fits_on_the_first_images_only() -> None:
    images = correlated_images(50, TINY)
    torch.testing.assert_close(fitted(TINY, images, 20).mean, fitted(TINY, images[:20]).mean)


def test_one_image_has_the_covariance_of_the_noise() -> None:
    model = fitted(TINY, correlated_images(1, TINY))
    torch.testing.assert_close(model.factor @ model.factor.T, torch.eye(6, dtype=torch.float64) / 12)


def test_not_positive_definite_is_refused_by_name() -> None:
    model = MultivariateGaussian(TINY, MultivariateGaussianConfig(num_fit_images=None))
    with pytest.raises(ValueError, match="no image"):
        model.start(correlated_images(3, TINY)[:0], generator_for(0))
    assert issubclass(NotPositiveDefiniteError, ValueError)
