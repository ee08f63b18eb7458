"""The diffusion bound: exact where it must be, below the likelihood by quadrature, the same from all steps or a few."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from dgm.config.params import load_params
from dgm.dequantization import dequantize
from dgm.distributions.gaussian import cholesky, gaussian_log_density, image_moments
from dgm.models.deep_diffusion.model import DeepDiffusion, DeepDiffusionConfig
from dgm.seeds import generator_for
from dgm.settings import build_model
from dgm.types import CIFAR10, Images, ImageSpec
from dgm.units import nats_to_bits_per_subpixel
from tests.models.fitted import correlated_images
from tests.tiny import TINY_MODELS

SPEC = ImageSpec(3, 2, 2, levels=8)
TOY = ImageSpec(1, 1, 1, levels=4)


def new_model(spec: ImageSpec, **changes: Any) -> DeepDiffusion:
    """In float64, fitted to correlated images, f = 0."""
    torch.manual_seed(1)
    values = TINY_MODELS["deep_diffusion"] | {"block": 1, "has_mirrored_start": False} | changes
    model = DeepDiffusion(spec, DeepDiffusionConfig.model_validate(values)).double()
    model.prepare(correlated_images(300, spec), generator_for(0))
    return model.eval()


def random_model(spec: ImageSpec, **changes: Any) -> DeepDiffusion:
    model = new_model(spec, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def nats(model: DeepDiffusion, images: Images, seed: int) -> Tensor:
    return model.log_likelihood(images, generator_for(seed)).nats


@pytest.mark.parametrize("num_draws", [0, 2])
def test_with_nothing_learned_it_is_exactly_the_isotropic_gaussian(num_draws: int) -> None:
    model = new_model(SPEC, has_linear_start=False, num_evaluation_steps=num_draws)
    images = correlated_images(20, SPEC, seed=1)
    x = dequantize(images, generator_for(3), torch.float64)
    expected = Normal(model.start.mean, model.start.scale).log_prob(x).sum(dim=(1, 2, 3))
    assert torch.allclose(nats(model, images, seed=3), expected, atol=1e-9)


def test_linear_start_is_tight_for_a_gaussian_as_the_first_step_shrinks() -> None:
    images = correlated_images(300, SPEC)
    mean, covariance = image_moments(images)
    x = dequantize(images, generator_for(3), torch.float64)
    exact = gaussian_log_density(x.flatten(1), mean, cholesky(covariance, "covariance")).mean()
    gaps = []
    for variance, num_steps in [(0.05, 30), (1e-3, 40), (1e-6, 60)]:
        model = new_model(SPEC, schedule="log_snr", first_variance=variance, num_steps=num_steps)
        gaps.append(float(exact - nats(model, images, seed=3).mean()))
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 0.01


def test_mirrored_start_is_that_of_the_images_and_their_mirror_images() -> None:
    images = correlated_images(300, SPEC)  # what new_model is fitted to
    start = new_model(SPEC, has_mirrored_start=True).start
    mean, covariance = image_moments(torch.cat([images, images.flip(-1)]))
    assert start.directions is not None
    rebuilt = start.scale**2 * (start.directions * start.variances) @ start.directions.T
    assert torch.allclose(start.mean.flatten(), mean, atol=1e-9)
    assert torch.allclose(rebuilt, covariance, atol=1e-6)


@pytest.mark.parametrize("has_linear_start", [True, False])
def test_bound_is_below_the_density_by_quadrature(has_linear_start: bool) -> None:
    model = random_model(TOY, has_linear_start=has_linear_start)
    y = torch.linspace(-9, 9, 2401, dtype=torch.float64)
    spacing = float(y[1] - y[0])
    density = Normal(0.0, 1.0).log_prob(y).exp()
    with torch.no_grad():
        for step in range(model.config.num_steps, 1, -1):
            t = torch.full((len(y),), step)
            (f_mu, f_sigma), (gain, variance) = model.read_network(y[:, None], t), model.start.step(t)
            mean = gain * y[:, None] + model.trajectory.beta[step].sqrt() * f_mu
            std = torch.exp(0.5 * model.log_variance(f_sigma, variance))
            density = density @ Normal(mean, std).log_prob(y).exp() * spacing
        beta = float(model.trajectory.beta[1])
        density = density @ Normal((1 - beta) ** 0.5 * y[:, None], beta**0.5).log_prob(y).exp() * spacing
    assert float(density.sum() * spacing) == pytest.approx(1.0, abs=1e-6)
    images = torch.arange(4, dtype=torch.uint8).repeat(3000).view(-1, 1, 1, 1)
    y_0 = model.start.standardize(dequantize(images, generator_for(5), torch.float64))[:, 0]
    nearest = ((y_0 - y[0]) / spacing).round().long()
    exact = density[nearest].log() - model.start.scale.log()
    gap = (exact - nats(model, images, seed=5)).view(3000, 4)
    assert bool((gap.mean(dim=0) > 3 * gap.std(dim=0) / 3000**0.5).all())


@pytest.mark.parametrize("has_linear_start", [True, False])
def test_bound_is_the_mean_log_ratio_along_simulated_trajectories(has_linear_start: bool) -> None:
    model = random_model(SPEC, has_linear_start=has_linear_start)
    images = correlated_images(2, SPEC, seed=2).repeat(4000, 1, 1, 1)
    generator = generator_for(6)
    y = model.start.standardize(dequantize(images, generator, torch.float64))
    ratio = -y.shape[1] * model.start.scale.log().expand(len(y))
    with torch.no_grad():
        for step in range(1, model.config.num_steps + 1):
            t, beta = torch.full((len(y),), step), model.trajectory.beta[step]
            forward = Normal((1 - beta).sqrt() * y, beta.sqrt())
            before, y = y, forward.mean + beta.sqrt() * torch.randn(y.shape, generator=generator, dtype=y.dtype)
            if step == 1:
                backward = Normal((1 - beta).sqrt() * y, beta.sqrt())
            else:
                (f_mu, f_sigma), (gain, variance) = model.read_network(y, t), model.start.step(t)
                std = torch.exp(0.5 * model.log_variance(f_sigma, variance))
                backward = Normal(gain * y + beta.sqrt() * f_mu, std)
            ratio = ratio + (backward.log_prob(before) - forward.log_prob(y)).sum(dim=1)
        ratio = (ratio + Normal(0.0, 1.0).log_prob(y).sum(dim=1)).view(4000, 2)
    bound = nats(model, images, seed=7).view(4000, 2)
    error = ((ratio.var(dim=0) + bound.var(dim=0)) / 4000).sqrt()
    assert bool(((ratio.mean(dim=0) - bound.mean(dim=0)).abs() < 4 * error).all())
    assert bool((bound.std(dim=0) < ratio.std(dim=0)).all())  # what the closed forms are for


@pytest.mark.parametrize("num_draws", [1, 3])
def test_a_few_weighed_steps_say_the_same_as_all(num_draws: int) -> None:
    model = random_model(SPEC, num_steps=9)
    images = correlated_images(2, SPEC, seed=2).repeat(3000, 1, 1, 1)
    with torch.no_grad():
        few = model.terms(images, generator_for(8), num_draws)
        every = model.terms(images, generator_for(9), 0)
    assert list(few) == list(every)
    for name, term in every.items():
        a, b = few[name].view(3000, 2), term.view(3000, 2)
        error = ((a.var(dim=0) + b.var(dim=0)) / 3000).sqrt()
        assert bool(((a.mean(dim=0) - b.mean(dim=0)).abs() <= 4 * error + 1e-9).all()), name


def test_objective_is_the_bound_from_one_step_an_image() -> None:
    model, images = random_model(SPEC), correlated_images(5, SPEC)
    objective = model.objective(images, generator_for(1), 0.0)
    terms = model.terms(images, generator_for(1), 1)
    assert torch.allclose(objective.nats, torch.stack(list(terms.values())).sum(dim=0))
    assert torch.equal(objective.loss, -objective.nats)
    assert not objective.nats.requires_grad


@pytest.mark.parametrize(("first_variance", "floor"), [(0.001, 3.0676), (0.002, 3.5676)])
def test_the_fixed_first_step_is_a_floor(first_variance: float, floor: float) -> None:
    model = new_model(SPEC, has_linear_start=False, first_variance=first_variance)
    model.start.scale.fill_(64.15007589)  # of the training images of CIFAR-10, in grey levels
    first_step = model.fixed_terms(torch.ones(1, SPEC.num_subpixels))["first_step"]
    bits = -float(nats_to_bits_per_subpixel(first_step, SPEC))
    assert bits == pytest.approx(math.log2(64.15007589) + 0.5 * math.log2(2 * math.pi * math.e * first_variance))
    assert bits == pytest.approx(floor, abs=1e-4)


def test_terms_of_an_evaluation_sum_to_the_bound_and_are_no_gains() -> None:
    model = random_model(SPEC)
    with torch.no_grad():
        result = model.log_likelihood(correlated_images(200, SPEC), generator_for(0))
    assert list(result.terms)[:3] == ["prior", "first_step", "kl_noise_below_1_64"]
    assert torch.allclose(torch.stack(list(result.terms.values())).sum(dim=0), result.nats)
    assert all(float(term.mean()) <= 0 for name, term in result.terms.items() if name != "first_step")


def test_the_published_profile_is_the_published_network() -> None:
    model = build_model(load_params(), "deep_diffusion", "published", CIFAR10)
    assert isinstance(model, DeepDiffusion)
    assert model.num_parameters() == 12_692_280 + 2
    assert (model.config.num_steps, model.config.schedule) == (1000, "reciprocal")
    assert model.config.first_variance == pytest.approx(1 / 1000 + 0.001)


def test_samples_of_the_start_have_the_moments_of_the_images() -> None:
    spec = ImageSpec(1, 1, 3, levels=64)
    images = correlated_images(3000, spec)
    model = new_model(spec, schedule="log_snr", first_variance=1e-5, num_steps=40)
    model.prepare(images, generator_for(0))
    (mean, covariance), (sampled_mean, sampled_covariance) = (
        image_moments(each) for each in (images, model.sample(6000, generator_for(4)))
    )
    assert torch.allclose(sampled_mean, mean, atol=0.05 * float(model.start.scale))
    assert torch.allclose(sampled_covariance, covariance, atol=0.06 * float(covariance.diagonal().max()))
    cold = image_moments(model.sample(500, generator_for(4), temperature=0.5))[1]
    assert float(cold.trace()) < 0.4 * float(covariance.trace())


def test_half_precision_changes_the_network_only() -> None:
    model, images = random_model(SPEC), correlated_images(50, SPEC)
    model.network.float()
    full = nats(model, images, seed=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = nats(model, images, seed=2)
    assert half.dtype == torch.float64
    assert not torch.equal(half, full)
    assert torch.allclose(half, full, rtol=0.02, atol=0.5)
