from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from dgm.distributions.gaussian import NotPositiveDefiniteError
from dgm.errors import StageError
from dgm.models.mixture_of_gaussians import MixtureOfGaussians, MixtureOfGaussiansConfig, cosines
from dgm.models.multivariate_gaussian import MultivariateGaussian, MultivariateGaussianConfig
from dgm.seeds import generator_for
from dgm.types import ImageSpec
from tests.models.fitted import correlated_images

SPEC = ImageSpec(channels=1, height=1, width=5, levels=64)
IMAGES = correlated_images(500, SPEC)
SETTINGS = {
    "num_components": 3,
    "basis": "pca",
    "num_fit_images": None,
    "has_mirrored_whitening": False,
    "mean_pseudo_counts": 0.0,
    "variance_pseudo_counts": 0.0,
    "weight_pseudo_counts": 1e-12,
    "min_images": 0.0,
}


def untrained(**changes) -> MixtureOfGaussians:
    return MixtureOfGaussians(SPEC, MixtureOfGaussiansConfig.model_validate(SETTINGS | changes))


def run(model: MixtureOfGaussians, num_iterations: int) -> list[float]:
    model.start(IMAGES, generator_for(0))
    return [model.iterate(IMAGES, i, generator_for(0, i)) for i in range(num_iterations)]


@pytest.mark.parametrize("basis", ["pca", "zca"])
def test_one_component_is_the_full_gaussian(basis: str) -> None:
    model = untrained(num_components=1, basis=basis)
    run(model, 2)
    gaussian = MultivariateGaussian(SPEC, MultivariateGaussianConfig(num_fit_images=None))
    gaussian.start(IMAGES, generator_for(0))
    x = IMAGES.double() + 0.25
    torch.testing.assert_close(model.log_density(x), gaussian.log_density(x), rtol=0, atol=1e-5)


def test_mirrored_whitening_is_that_of_the_images_and_their_mirror_images() -> None:
    mirrored, doubled = untrained(has_mirrored_whitening=True), untrained()
    mirrored.start(IMAGES, generator_for(0))
    doubled.start(torch.cat([IMAGES, IMAGES.flip(-1)]), generator_for(0))
    gram, expected = (model.whitening.T @ model.whitening for model in (mirrored, doubled))  # free of the axes' signs
    torch.testing.assert_close(gram, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(mirrored.mean, doubled.mean, rtol=0, atol=1e-9)


def test_opponent_directions_are_a_rotation_of_the_channels_of_each_pixel() -> None:
    torch.testing.assert_close(cosines(3) @ cosines(3).T, torch.eye(3, dtype=torch.float64))
    spec = ImageSpec(channels=3, height=1, width=2, levels=32)
    images = correlated_images(300, spec)
    config = MixtureOfGaussiansConfig.model_validate(SETTINGS | {"num_components": 1})
    zca = MixtureOfGaussians(spec, config.model_copy(update={"basis": "zca"}))
    opponent = MixtureOfGaussians(spec, config.model_copy(update={"basis": "opponent"}))
    zca.start(images, generator_for(0))
    opponent.start(images, generator_for(0))
    x = images.double() + 0.25
    torch.testing.assert_close(opponent.log_density(x), zca.log_density(x), rtol=0, atol=1e-4)
    y = zca._whiten(x).view(-1, 3, 2)
    brightness = y.sum(dim=1) / math.sqrt(3)
    torch.testing.assert_close(opponent._whiten(x)[:, :2], brightness, rtol=0, atol=1e-9)


def test_em_is_scikit_learns() -> None:
    """Oracle: GaussianMixture on the whitened points, from our start, for as many iterations; without noise."""
    model = untrained()
    model.start(IMAGES, generator_for(0))
    model.noise_variances.zero_()
    points = torch.cat(list(model._chunks(IMAGES))).numpy()
    oracle = GaussianMixture(
        3,
        covariance_type="diag",
        reg_covar=0.0,
        tol=0.0,
        max_iter=7,
        weights_init=model.log_weights.exp().numpy(),
        means_init=model.means.numpy(),
        precisions_init=model.variances.reciprocal().numpy(),
    )
    with pytest.warns(UserWarning, match="did not converge"):
        oracle.fit(points)
    for i in range(7):
        model.iterate(IMAGES, i, generator_for(0, i))
    np.testing.assert_allclose(model.means.numpy(), np.asarray(oracle.means_), atol=1e-6)
    np.testing.assert_allclose(model.variances.numpy(), np.asarray(oracle.covariances_), atol=1e-6)
    np.testing.assert_allclose(model.log_weights.exp().numpy(), np.asarray(oracle.weights_), atol=1e-6)
    expected = oracle.score_samples(points) + float(model.log_determinant)
    actual = model.log_density(IMAGES.double() + 0.5)
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-4)


def test_density_is_scipys_in_grey_levels() -> None:
    model = untrained(basis="zca")
    run(model, 5)
    x = IMAGES[:20].double() + 0.25
    inverse = torch.linalg.inv(model.whitening)
    density = np.zeros(20)
    for k in range(3):
        mean = (model.mean + inverse @ model.means[k]).numpy()
        covariance = (inverse @ model.variances[k].diag() @ inverse.T).numpy()
        component = multivariate_normal(mean, covariance)  # type: ignore[arg-type]
        density += math.exp(model.log_weights[k]) * component.pdf(x.flatten(1).numpy())
    np.testing.assert_allclose(model.log_density(x).numpy(), np.log(density), atol=1e-8)


def log_prior(model: MixtureOfGaussians) -> float:
    """What the pseudo-counts add to the log-likelihood of all images, up to a constant, in nats."""
    config, precisions = model.config, model.variances.reciprocal()
    ratios = model.scales.unsqueeze(1) * precisions
    penalty = config.mean_pseudo_counts * (model.means.square() * precisions).sum()
    penalty += config.variance_pseudo_counts * (ratios - ratios.log()).sum()
    return float(config.weight_pseudo_counts * model.log_weights.sum() - 0.5 * penalty)


@pytest.mark.parametrize("pseudo_counts", [0.0, 3.0, 300.0])
def test_em_climbs(pseudo_counts: float) -> None:
    model = untrained(
        mean_pseudo_counts=pseudo_counts,
        variance_pseudo_counts=pseudo_counts,
        weight_pseudo_counts=max(pseudo_counts, 1e-12),
    )
    model.start(IMAGES, generator_for(0))
    objective = []
    for i in range(25):
        prior = log_prior(model) if pseudo_counts else 0.0
        objective.append(model.iterate(IMAGES, i, generator_for(0, i)) * len(IMAGES) + prior)
    assert all(after >= before - 1e-7 for before, after in itertools.pairwise(objective))
    assert objective[-1] > objective[0] + 1


def test_the_maximisation_is_stationary() -> None:
    """The gradient of the expected complete log-likelihood plus the penalty vanishes at what `_maximise` sets."""
    model = untrained(mean_pseudo_counts=7.0, variance_pseudo_counts=5.0)
    generator = generator_for(0)
    counts = torch.rand(3, generator=generator, dtype=torch.float64) * 20 + 5
    sums = torch.randn(3, 5, generator=generator, dtype=torch.float64) * 30
    squares = sums.square() / counts.unsqueeze(1) + 40
    old_scales = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    model.scales.copy_(old_scales)
    model._maximise(counts, sums, squares)
    m, v, s, n = model.means.clone(), model.variances.clone(), old_scales.unsqueeze(1), counts.unsqueeze(1)
    m.requires_grad_()
    v.requires_grad_()
    scatter = squares - 2 * m * sums + (n + 7.0) * m.square() + 5.0 * s
    gradients = torch.autograd.grad((-0.5 * ((n + 5.0) * v.log() + scatter / v)).sum(), (m, v))
    scales = model.scales.clone().requires_grad_()
    penalty = (scales.unsqueeze(1) / model.variances - scales.unsqueeze(1).log()).sum()
    for gradient in (*gradients, *torch.autograd.grad(penalty, scales)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)


def test_the_reported_likelihood_is_a_bound_on_the_expectation_over_noise() -> None:
    model = untrained()
    run(model, 5)
    before = copy.deepcopy(model)
    bound = model.iterate(IMAGES, 5, generator_for(0, 5))
    draws = torch.stack([before.log_likelihood(IMAGES, generator_for(s)).nats.mean() for s in range(100)])
    error = float(draws.std()) / 10
    assert -0.05 < bound - float(draws.mean()) < 3 * error


def test_a_resumed_em_ends_bit_identical() -> None:
    whole, first, second = (untrained(variance_pseudo_counts=2.0) for _ in range(3))
    run(whole, 6)
    run(first, 3)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for i in range(3, 6):
        second.iterate(IMAGES, i, generator_for(0, i))
    assert all(torch.equal(a, second.state_dict()[name]) for name, a in whole.state_dict().items())


def test_order_of_the_components_does_not_matter() -> None:
    model = untrained()
    run(model, 3)
    x = IMAGES.double() + 0.5
    expected = model.log_density(x)
    for buffer in (model.log_weights, model.means, model.variances, model.scales):
        buffer.copy_(buffer.flip(0))
    torch.testing.assert_close(model.log_density(x), expected, rtol=0, atol=1e-9)


def test_a_dead_component_is_split_off_the_heaviest() -> None:
    model = untrained(min_images=5.0, variance_pseudo_counts=1.0, mean_pseudo_counts=1.0)
    run(model, 1)
    model.means[1] = 1e4  # no image is near
    with pytest.warns(UserWarning, match=r"component 1 was left with \S+ images: split off [02]") as caught:
        model.iterate(IMAGES, 1, generator_for(0, 1))
    heaviest = int(str(caught[0].message)[-1])
    assert torch.equal(model.means[1], model.means[heaviest])
    assert float(model.log_weights[1]) == float(model.log_weights[heaviest])
    model.iterate(IMAGES, 2, generator_for(0, 2))
    assert float(model.log_weights[1].exp()) * len(IMAGES) > 5


@pytest.mark.filterwarnings("error::UserWarning")
def test_no_component_is_split_that_would_leave_two_dead_ones() -> None:
    model = untrained(min_images=160.0, variance_pseudo_counts=1.0, mean_pseudo_counts=1.0)
    model.start(IMAGES, generator_for(0))  # all have 166 or 167 of 500
    counts = torch.tensor([150.0, 180.0, 170.0], dtype=torch.float64)
    sums, squares = torch.zeros(3, 5, dtype=torch.float64), counts.unsqueeze(1).expand(3, 5).clone()
    model._maximise(counts, sums, squares)
    torch.testing.assert_close(model.log_weights.exp(), counts / 500, rtol=0, atol=1e-9)


def test_a_component_without_images_is_refused_by_name() -> None:
    model = untrained()
    run(model, 1)
    model.means[1] = 1e4
    with pytest.raises(NotPositiveDefiniteError, match="components 1 have no variance"):
        model.iterate(IMAGES, 1, generator_for(0, 1))


def test_recovers_the_mixture_that_made_the_images() -> None:
    generator = generator_for(7)
    labels = torch.rand(2000, generator=generator, dtype=torch.float64) < 0.3
    spread = torch.where(labels, 8.0, 2.0).double().view(-1, 1, 1, 1)
    x = 32 + spread * torch.randn(2000, *SPEC.shape, generator=generator, dtype=torch.float64)
    images = x.floor().clamp(0, 63).to(torch.uint8)
    model = untrained(num_components=2)
    model.start(images, generator_for(0))
    for i in range(20):
        model.iterate(images, i, generator_for(0, i))
    assert float(model.log_weights.exp().min()) == pytest.approx(0.3, abs=0.03)
    ratio = model.variances.mean(dim=1).sort().values
    assert float(ratio[1] / ratio[0]) == pytest.approx((64 + 1 / 12) / (4 + 1 / 12), rel=0.1)


def test_samples_have_the_moments_of_the_mixture() -> None:
    model = untrained()
    run(model, 10)
    x = model.sample_density(20000, generator_for(3), temperature=1.0).flatten(1)
    data = IMAGES.flatten(1).double() + 0.5
    scale = data.std(dim=0)
    assert float(((x.mean(dim=0) - data.mean(dim=0)) / scale).abs().max()) < 0.05
    assert float(((x.std(dim=0) - scale) / scale).abs().max()) < 0.08


def test_refuses_more_components_than_images() -> None:
    with pytest.raises(StageError, match=r"num_components: 3 of at least 1 images .* take 3 images, there are 2"):
        untrained(num_fit_images=2).start(IMAGES, generator_for(0))
    with pytest.raises(StageError, match=r"num_components: 3 of at least 200 images .* take 600 images, there are 500"):
        untrained(min_images=200.0).start(IMAGES, generator_for(0))


def test_variances_that_are_no_numbers_are_refused_by_name() -> None:
    model = untrained()
    run(model, 1)
    model.means[2] = float("nan")
    with pytest.raises(NotPositiveDefiniteError, match="components 0, 1, 2 have no variance"):
        model.iterate(IMAGES, 1, generator_for(0, 1))
