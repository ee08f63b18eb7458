"""Convolutional DRAW: published size, bounds against quadrature over the latents, a learned prior, a linear start."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dgm.distributions.discretized_logistic import discretized_logistic_log_pmf, discretized_logistic_log_prob
from dgm.distributions.precision import sum_per_image
from dgm.models.conv_draw import ConvDRAW, ConvDRAWConfig
from dgm.seeds import generator_for
from dgm.types import CIFAR10, ImageSpec
from tests.bounds import assert_autocast_changes_little, assert_bound_holds, assert_samples_follow
from tests.tiny import SMALL, all_images, random_images, tiny_model

TOY = ImageSpec(1, 2, 2, levels=2)


def config_with(**changes: Any) -> ConvDRAWConfig:
    values: dict[str, Any] = {
        "num_steps": 2,
        "num_hidden": 5,
        "num_latents": 1,
        "num_read_features": 3,
        "stride": 2,
        "kernel_size": 3,
        "read_kernel_size": 5,
        "has_linear_start": False,
        "correction_scale": 2.0,
        "num_start_images": 50,
    }
    return ConvDRAWConfig.model_validate(values | changes)


def shaken(model: ConvDRAW, size: float) -> ConvDRAW:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return model.eval()


def toy_model() -> ConvDRAW:
    """Two latents in all, the prior of the second moved by the first."""
    torch.manual_seed(2)
    model = shaken(ConvDRAW(TOY, config_with()).double(), 0.4)
    with torch.no_grad():
        model.head_canvas.weight.mul_(2)
        model.head_prior.weight.mul_(2)
        model.head_posterior.weight.mul_(0.3)
        model.head_posterior.bias.fill_(0.3)  # type: ignore[union-attr]
        model.head_prior.bias.fill_(0.0)  # type: ignore[union-attr]
    return model


def exact_log_prob(model: ConvDRAW) -> Tensor:
    """log P of all 16 images by quadrature over the noise of the two latents. Shapes: -> (16,)."""
    axis = torch.linspace(-7, 7, 141, dtype=torch.float64)
    noise = torch.cartesian_prod(axis, axis)
    log_prior = -0.5 * (noise**2).sum(dim=1) - math.log(2 * math.pi) + 2 * math.log(0.1)
    with torch.no_grad():
        likelihood = model.generate(noise.T[:, :, None, None, None])
        log_pmf = discretized_logistic_log_pmf(*likelihood, TOY.levels).flatten(1, 3)
    images = all_images(TOY).long().flatten(1)
    chosen = sum(log_pmf[:, subpixel, images[:, subpixel]] for subpixel in range(4))
    return torch.logsumexp(log_prior[:, None] + chosen, dim=0)


def test_bound_is_below_the_exact_likelihood_and_the_weights_average_to_it() -> None:
    model = toy_model()
    assert_bound_holds(model, all_images(TOY), exact_log_prob(model))


def test_published_size() -> None:
    changes = {"num_steps": 32, "num_latents": 12, "num_read_features": 12, "kernel_size": 5}

    def count(hidden: int) -> int:
        read = 2 * (6 * 5 * 5 + 1) * 12  # image and error; mean and log-scale of the canvas
        encoder = 4 * hidden * ((12 + hidden + hidden) * 25 + 1)  # reads maps, the decoder's state and its own
        decoder = 4 * hidden * ((12 + 12 + hidden) * 25 + 1)  # reads latents, maps and its own state
        heads = 3 * 24 * (25 * hidden + 1)  # posterior, prior, 6 maps of 2 x 2 sub-pixels of the canvas
        first_states, first_canvas = 4 * hidden, 6
        return read + encoder + decoder + heads + first_states + first_canvas

    for hidden, millions in ((160, 8.55), (320, 32.45)):
        model = ConvDRAW(CIFAR10, config_with(num_hidden=hidden, **changes))
        assert model.num_parameters() == count(hidden)
        assert model.num_parameters() == pytest.approx(millions * 1e6, rel=0.001)
        assert model.grid == (16, 16)


def test_posterior_equal_to_the_prior_costs_nothing() -> None:
    torch.manual_seed(0)
    model = shaken(ConvDRAW(SMALL, config_with(num_latents=3)).double(), 0.3)
    images = random_images(SMALL, 4)
    with torch.no_grad():
        for head in (model.head_posterior, model.head_prior):
            assert head.bias is not None
            head.weight.zero_()
            head.bias.copy_(torch.linspace(-1, 1, 6))
        result = model.log_likelihood(images, generator_for(1))
        for term in ("kl_step_01", "kl_step_02"):
            assert torch.allclose(result.terms[term], torch.zeros(4, dtype=torch.float64), atol=1e-12)
        assert torch.allclose(model.log_weights(images, generator_for(1)), result.nats, rtol=1e-12)
        model.head_prior.bias[:3] += 1.0  # type: ignore[index]
        moved = model.log_likelihood(images, generator_for(1)).terms["kl_step_01"]
    variances = torch.linspace(-1, 1, 6)[3:].double().mul(2).exp()
    assert torch.allclose(moved, -(4 * 4 * 0.5 / variances).sum(), rtol=1e-6)


def test_the_prior_of_a_step_knows_the_steps_before() -> None:
    model = toy_model()
    canvas, _, decoder = model.start(2)
    seen = model.likelihood(canvas, [])
    z = torch.tensor([-1.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)
    assert torch.equal(*model.prior(decoder).mean.unbind())
    _, decoder = model.paint(z, canvas, seen, decoder)
    first, second = model.prior(decoder).mean.unbind()
    assert not torch.allclose(first, second, atol=1e-3)


def test_terms_sum_to_the_bound() -> None:
    model = tiny_model("conv_draw", SMALL)
    assert isinstance(model, ConvDRAW)
    with torch.no_grad():
        result = model.log_likelihood(random_images(SMALL, 5), generator_for(0))
        objective = model.objective(random_images(SMALL, 5), generator_for(0), 0.5)
    assert list(result.terms) == ["reconstruction", "kl_step_01", "kl_step_02"]
    assert all(bool((term < 0).all()) for term in result.terms.values())
    assert torch.allclose(result.nats, objective.nats, rtol=1e-12)
    assert torch.allclose(objective.loss, -objective.nats)


def test_training_starts_at_the_bound_of_the_linear_model() -> None:
    torch.manual_seed(0)
    changes = {"num_steps": 3, "num_latents": 4, "num_start_images": 100}
    model = ConvDRAW(SMALL, config_with(has_linear_start=True, **changes)).double()
    images = random_images(SMALL, 100)
    model.prepare(images, generator_for(0))
    assert model.linear is not None
    posterior = model.linear.posterior(model.linear.coefficients(2 * images.double() / 3 - 1))
    log_std = posterior.log_std.expand_as(posterior.mean)
    expected = (0.5 * (posterior.mean**2 + (2 * log_std).exp() - 1) - log_std).double()
    noise = model.noise(100, generator_for(1))
    with torch.no_grad():
        reconstruction, kl, _ = model.unroll(images, noise)
    for step, part in enumerate(expected.chunk(3, dim=1)):
        assert torch.allclose(kl[:, step], sum_per_image(part))
    z = posterior.mean + log_std.exp() * torch.cat(noise.unbind(), dim=1)
    log_scale = 0.5 * model.linear.noise_variance.log() + math.log(3**0.5 / math.pi)
    log_prob = discretized_logistic_log_prob(images, model.linear.reconstruct(z), log_scale, SMALL.levels)
    assert torch.allclose(reconstruction, sum_per_image(log_prob), rtol=1e-6)


def test_first_canvas_is_the_mean_colour() -> None:
    model = ConvDRAW(SMALL, config_with(num_start_images=300)).double()
    images = random_images(SMALL, 300)
    model.prepare(images, generator_for(0))
    x = 2 * images.double() / 3 - 1
    canvas, _, _ = model.start(1)
    mean, log_scale = model.likelihood(canvas, [])
    assert torch.allclose(mean[0, :, 0, 0], x.mean(dim=(0, 2, 3)))
    assert torch.allclose(log_scale[0, :, 0, 0].exp() * math.pi / 3**0.5, x.std(dim=(0, 2, 3)), rtol=0.01)


def test_samples_follow_the_model() -> None:
    model = toy_model()
    assert_samples_follow(model, exact_log_prob(model))


def test_autocast_changes_little_and_stays_finite() -> None:
    torch.manual_seed(0)
    model = ConvDRAW(SMALL, config_with(num_steps=2, num_latents=5, has_linear_start=True))
    model.prepare(random_images(SMALL, 50), generator_for(0))
    assert_autocast_changes_little(model, random_images(SMALL, 4), 0.02)


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="stride 3 does not divide 8 x 8"):
        ConvDRAW(SMALL, config_with(stride=3))
    with pytest.raises(ValueError, match="kernel_size 4 is even"):
        ConvDRAW(SMALL, config_with(kernel_size=4))
    with pytest.raises(ValueError, match="read_kernel_size 3 is below stride 4"):
        ConvDRAW(SMALL, config_with(stride=4, read_kernel_size=3))
