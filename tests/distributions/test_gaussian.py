from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from dgm.distributions.gaussian import (
    NotPositiveDefiniteError,
    cholesky,
    gaussian_log_density,
    image_moments,
    principal_axes,
    zca,
)
from dgm.seeds import generator_for


def spd(dim: int, seed: int = 0) -> torch.Tensor:
    a = torch.randn(dim, dim + 3, generator=generator_for(seed), dtype=torch.float64)
    return a @ a.T


def test_log_density_is_scipys() -> None:
    covariance, mean = spd(5), torch.arange(5, dtype=torch.float64)
    x = torch.randn(7, 5, generator=generator_for(1), dtype=torch.float64) * 3
    oracle = multivariate_normal(mean.numpy(), covariance.numpy())  # type: ignore[arg-type]
    actual = gaussian_log_density(x, mean, cholesky(covariance, "covariance"))
    np.testing.assert_allclose(actual.numpy(), oracle.logpdf(x.numpy()), atol=1e-10)


@pytest.mark.parametrize("chunk_size", [1, 7, 1024])
def test_moments_are_numpys_whatever_the_chunks(chunk_size: int) -> None:
    images = torch.randint(0, 256, (40, 3, 2, 2), generator=generator_for(2), dtype=torch.uint8)
    images[:, 1] = 255  # the largest products
    mean, covariance = image_moments(images, chunk_size)
    integers = images.flatten(1).double().numpy()
    np.testing.assert_allclose(mean.numpy(), integers.mean(axis=0) + 0.5, atol=1e-10)
    np.testing.assert_allclose(covariance.numpy(), np.cov(integers.T, bias=True) + np.eye(12) / 12, atol=1e-9)


def test_moments_are_exact_sums_of_integers() -> None:
    """2048 images of level 0 and 2048 of 255: float32 sums over more than 1024 images would round."""
    images = torch.zeros(4096, 1, 1, 2, dtype=torch.uint8)
    images[::2] = 255
    _, covariance = image_moments(images)
    assert float(covariance[0, 1]) == 127.5**2
    with pytest.raises(ValueError, match="1024"):
        image_moments(images, chunk_size=1025)


def test_mirrored_moments_are_those_of_twice_the_images() -> None:
    images = torch.randint(0, 256, (50, 3, 2, 4), generator=generator_for(3), dtype=torch.uint8)
    images[:, :, :, 0] //= 2  # left and right differ
    expected = image_moments(torch.cat([images, images.flip(-1)]))
    for actual, both in zip(image_moments(images, is_mirrored=True), expected, strict=True):
        torch.testing.assert_close(actual, both, rtol=0, atol=1e-9)
    assert float((expected[0] - image_moments(images)[0]).abs().max()) > 10


def test_zca_whitens_and_knows_its_log_determinant() -> None:
    covariance = spd(6)
    whitening, log_det = zca(covariance, "covariance")
    eye = torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(whitening @ covariance @ whitening.T, eye, rtol=0, atol=1e-9)
    torch.testing.assert_close(whitening, whitening.T, rtol=0, atol=1e-10)
    assert float(log_det) == pytest.approx(float(torch.linalg.slogdet(whitening)[1]), abs=1e-9)


def test_principal_axes_are_ordered_and_diagonalise() -> None:
    covariance = spd(6)
    variances, axes = principal_axes(covariance, "covariance")
    assert (variances.diff() < 0).all()
    torch.testing.assert_close(axes.T @ covariance @ axes, variances.diag(), rtol=0, atol=1e-9)


def test_not_positive_definite_is_refused_by_name() -> None:
    singular = torch.tensor([[1.0, 1.0], [1.0, 0.9]], dtype=torch.float64)
    with pytest.raises(NotPositiveDefiniteError, match="the covariance of X is not positive definite"):
        cholesky(singular, "the covariance of X")
    with pytest.raises(NotPositiveDefiniteError, match=r"components \(matrices 1\)"):
        cholesky(torch.stack([torch.eye(2, dtype=torch.float64), singular]), "components")
    with pytest.raises(NotPositiveDefiniteError, match="eigenvalue"):
        zca(singular, "the covariance of X")
