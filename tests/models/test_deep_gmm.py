from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from scipy.stats import multivariate_normal

from dgm.models.deep_gmm import DeepGMM, DeepGMMConfig
from dgm.models.multivariate_gaussian import MultivariateGaussian, MultivariateGaussianConfig
from dgm.seeds import generator_for
from dgm.types import ImageSpec
from tests.models.fitted import correlated_images

SPEC = ImageSpec(channels=2, height=2, width=4, levels=32)
IMAGES = correlated_images(600, SPEC)
SETTINGS = {
    "block_size": 2,
    "num_components": 3,
    "tree_states": [2],
    "num_fit_images": None,
    "has_mirrored_whitening": False,
    "num_shared_images": 300,
    "num_shared_iterations": 3,
    "shared_pseudo_counts": 1e-6,
    "position_pseudo_counts": 20.0,
    "tree_pseudo_counts": 1e-3,
}


def untrained(**changes) -> DeepGMM:
    return DeepGMM(SPEC, DeepGMMConfig.model_validate(SETTINGS | changes))


def run(model: DeepGMM, iterations: range, is_started: bool = False) -> list[float]:
    if not is_started:
        model.start(IMAGES, generator_for(0))
    return [model.iterate(IMAGES, i, generator_for(0, i)) for i in iterations]


def test_one_component_is_the_full_gaussian() -> None:
    """Proves every constant: whitening, blocks, and log-determinant."""
    model = untrained(num_components=1, tree_states=[1], shared_pseudo_counts=0.0, num_shared_images=600)
    gaussian = MultivariateGaussian(SPEC, MultivariateGaussianConfig(num_fit_images=None))
    gaussian.start(IMAGES, generator_for(0))
    model.start(IMAGES, generator_for(0))
    dim = SPEC.num_subpixels // 2
    model.block_means.zero_()
    model.inverse_factors.copy_(torch.eye(dim, dtype=torch.float64).expand_as(model.inverse_factors))
    x = IMAGES.double() + 0.25
    torch.testing.assert_close(model.log_density(x), gaussian.log_density(x), rtol=0, atol=1e-8)


def test_mirrored_whitening_is_that_of_the_images_and_their_mirror_images() -> None:
    mirrored, doubled = untrained(has_mirrored_whitening=True), untrained()
    mirrored.start(IMAGES, generator_for(0))
    doubled.start(torch.cat([IMAGES, IMAGES.flip(-1)]), generator_for(0))
    torch.testing.assert_close(mirrored.whitening, doubled.whitening, rtol=0, atol=1e-9)
    torch.testing.assert_close(mirrored.mean, doubled.mean, rtol=0, atol=1e-9)


def test_density_is_the_sum_over_every_path() -> None:
    model = untrained()
    run(model, range(6))
    x = IMAGES[:3].double() + 0.25
    blocks = model._whitened_blocks(x)
    leaves, (root,) = model.log_tables[0].exp(), model.log_tables[1].exp()[0]
    for n in range(3):
        density = 0.0
        for g, (k0, k1) in itertools.product(range(2), itertools.product(range(3), repeat=2)):
            path = float(root[g] * leaves[0, g, k0] * leaves[1, g, k1])
            for b, k in enumerate((k0, k1)):
                covariance = torch.linalg.inv(model.inverse_factors[b, k].T @ model.inverse_factors[b, k])
                oracle = multivariate_normal(model.block_means[b, k].numpy(), covariance.numpy())  # type: ignore[arg-type]
                path *= float(oracle.pdf(blocks[b, :, n].numpy()))
            density += path
        expected = math.log(density) + float(model.log_determinant)
        assert float(model.log_density(x)[n]) == pytest.approx(expected, abs=1e-8)


def test_density_integrates_to_one() -> None:
    spec = ImageSpec(channels=1, height=1, width=2, levels=16)
    model = DeepGMM(spec, DeepGMMConfig.model_validate(SETTINGS | {"block_size": 1}))
    images = correlated_images(600, spec)
    model.start(images, generator_for(0))
    for i in range(6):
        model.iterate(images, i, generator_for(0, i))
    axis = torch.arange(-30, 50, 0.1, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis).view(-1, 1, 1, 2)
    assert float(model.log_density(grid).exp().sum() * 0.01) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("tree_states", [[], [3], [2, 2]])
def test_each_phase_of_em_climbs(tree_states: list[int]) -> None:
    changes = {"tree_states": tree_states, "position_pseudo_counts": 1e-9, "shared_pseudo_counts": 1e-9}
    model = untrained(**changes, tree_pseudo_counts=1e-9, num_shared_iterations=8)
    nats = run(model, range(20))
    for phase in (nats[:8], nats[8:]):
        assert all(after >= before - 1e-8 for before, after in itertools.pairwise(phase))
    assert nats[-1] > nats[0] + 0.1


def test_beats_the_gaussian_on_images_of_varying_contrast() -> None:
    model, single = untrained(), untrained(num_components=1, tree_states=[])
    held_out = correlated_images(400, SPEC, seed=1)
    run(model, range(8))
    run(single, range(4))
    gain = (
        model.log_likelihood(held_out, generator_for(9)).nats - single.log_likelihood(held_out, generator_for(9)).nats
    )
    assert float(gain.mean()) > 0.1


@pytest.mark.parametrize("paused_after", [2, 3, 5])
def test_a_resumed_fit_ends_bit_identical(paused_after: int) -> None:
    whole, first, second = untrained(), untrained(), untrained()
    run(whole, range(6))
    run(first, range(paused_after))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(second, range(paused_after, 6), is_started=True)
    assert all(torch.equal(a, second.state_dict()[name]) for name, a in whole.state_dict().items())


def test_strong_pseudo_counts_keep_the_shared_components() -> None:
    model = untrained(position_pseudo_counts=1e9)
    run(model, range(5))
    precisions = model.inverse_factors.transpose(2, 3) @ model.inverse_factors
    shared = torch.linalg.inv(model.shared_covariances).expand_as(precisions)
    torch.testing.assert_close(precisions, shared, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.block_means, model.shared_means.expand_as(model.block_means), rtol=0, atol=1e-4)


def test_blocks_are_squares_of_pixels_and_go_back_to_images() -> None:
    spec = ImageSpec(channels=2, height=4, width=6, levels=32)
    model = DeepGMM(spec, DeepGMMConfig.model_validate(SETTINGS))
    x = torch.zeros(2, *spec.shape, dtype=torch.float64)
    x[0, :, :2, 4:] = 1.0  # upper right
    x[1, 1, 2, 1] = 1.0  # lower left, second channel, upper right pixel of the block
    blocks = model._whitened_blocks(x) + 16
    assert blocks.shape == (6, 8, 2)
    assert blocks[:, :, 0].sum(dim=1).tolist() == [0, 0, 8, 0, 0, 0]
    assert blocks[3, :, 1].tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    model.whitening.copy_(torch.randn(48, 48, generator=generator_for(0), dtype=torch.float64))
    torch.testing.assert_close(model._from_blocks(model._whitened_blocks(x)), x, rtol=0, atol=1e-8)


def test_states_of_the_tree_start_different() -> None:
    """From equal states EM would never tell them apart."""
    model = untrained()
    run(model, range(4))
    leaves = model.log_tables[0].exp()
    assert float((leaves[:, 0] - leaves[:, 1]).abs().max()) > 0.2


def test_samples_have_the_moments_of_the_images() -> None:
    model = untrained()
    run(model, range(6))
    x = model.sample_density(20000, generator_for(5), temperature=1.0).flatten(1)
    data = IMAGES.flatten(1).double() + 0.5
    scale = data.std(dim=0)
    assert float(((x.mean(dim=0) - data.mean(dim=0)) / scale).abs().max()) < 0.15
    assert float((torch.corrcoef(x.T) - torch.corrcoef(data.T)).abs().max()) < 0.15
    assert torch.equal(model.sample(3, generator_for(1)), model.sample(3, generator_for(1)))


def test_samples_are_drawn_about_the_components_means() -> None:
    model = untrained()
    run(model, range(4))
    model.block_means.add_(100.0)
    blocks = model._whitened_blocks(model.sample_density(50, generator_for(5), temperature=1.0))
    assert float((blocks - 100.0).abs().mean()) < 3


def test_refuses_a_block_that_does_not_divide_the_image() -> None:
    with pytest.raises(ValueError, match="block_size: 3 must divide"):
        untrained(block_size=3)
    with pytest.raises(ValueError, match="tree_states"):
        untrained(tree_states=[0])
