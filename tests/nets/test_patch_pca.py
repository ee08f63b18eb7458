"""The linear start: its posterior is the exact one, and its evidence is that of the Gaussian it stands for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.nets.patch_pca import PatchPCA
from dgm.types import ImageSpec
from tests.tiny import random_images

SPEC = ImageSpec(2, 4, 4, levels=8)


def fitted(num_latents: int) -> tuple[PatchPCA, Tensor]:
    images = random_images(SPEC, 200)
    images[:, :, :, 1::2] = (images[:, :, :, ::2] // 2 + images[:, :, :, 1::2] // 2).to(torch.uint8)
    pca = PatchPCA(SPEC, 2, num_latents).double()
    pca.fit(images)
    return pca, images


def patches_of(images: Tensor) -> Tensor:
    """Written out by hand: channel, row, column inside the patch."""
    x = unit_from_levels(images, SPEC.levels, torch.float64)
    return torch.stack(
        [x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten(1) for i in range(2) for j in range(2)]
    ).flatten(0, 1)


def model_covariance(pca: PatchPCA) -> tuple[Tensor, Tensor]:
    """Loadings and covariance of the Gaussian over patches."""
    loadings = pca.directions * (pca.variances - pca.noise_variance).sqrt()[:, 0, 0]
    return loadings, loadings @ loadings.T + pca.noise_variance * torch.eye(8, dtype=torch.float64)


def test_with_all_but_one_latent_it_is_the_covariance_of_the_patches() -> None:
    pca, images = fitted(7)
    rows = patches_of(images)
    expected = torch.cov(rows.T, correction=0) + (2 / 7) ** 2 / 12 * torch.eye(8, dtype=torch.float64)
    assert torch.allclose(model_covariance(pca)[1], expected, atol=1e-12)
    assert torch.allclose(pca.mean.flatten(), rows.mean(dim=0), atol=1e-12)


def test_the_posterior_is_that_of_conditioning_the_joint_gaussian() -> None:
    pca, images = fitted(5)
    loadings, covariance = model_covariance(pca)
    x = unit_from_levels(images[:1], SPEC.levels, torch.float64)
    found = pca.posterior(pca.coefficients(x))
    centred = x[0, :, 2:, :2].flatten() - pca.mean.flatten()
    gain = torch.linalg.solve(covariance, loadings).T
    assert torch.allclose(found.mean[0, :, 1, 0], gain @ centred, atol=1e-12)
    posterior_covariance = torch.eye(5, dtype=torch.float64) - gain @ loadings
    assert torch.allclose(posterior_covariance, torch.diag((2 * found.log_std[0, :, 1, 0]).exp()), atol=1e-12)


def test_reconstruction_applies_the_loadings_of_each_place() -> None:
    pca, _ = fitted(5)
    z = torch.randn(1, 5, 2, 2, dtype=torch.float64)
    expected = pca.mean.flatten() + model_covariance(pca)[0] @ z[0, :, 0, 1]
    assert torch.allclose(pca.reconstruct(z)[0, :, :2, 2:].flatten(), expected, atol=1e-12)


def test_spare_latents_cost_nothing_and_change_nothing() -> None:
    pca, images = fitted(11)
    posterior = pca.posterior(pca.coefficients(unit_from_levels(images, SPEC.levels, torch.float64)))
    assert posterior.mean.shape[1] == 11
    assert not posterior.mean[:, 7:].any()
    assert not posterior.log_std[:, 7:].any()
    z = torch.randn(2, 11, 2, 2, dtype=torch.float64)
    other = torch.cat([z[:, :7], -z[:, 7:]], dim=1)
    assert torch.equal(pca.reconstruct(z), pca.reconstruct(other))


def test_patches_that_do_not_tile_are_refused() -> None:
    with pytest.raises(ValueError, match="3 x 3 do not tile 4 x 4"):
        PatchPCA(SPEC, 3, 4)
