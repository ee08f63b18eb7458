"""DRAW: published size, bounds against quadrature over the latents, a linear start, windows that the decoder moves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dgm.distributions.diagonal_gaussian import DiagonalGaussian
from dgm.distributions.discretized_logistic import discretized_logistic_log_pmf
from dgm.models.draw.model import DRAW, DRAWConfig
from dgm.seeds import generator_for
from dgm.types import CIFAR10, ImageSpec
from tests.bounds import assert_autocast_changes_little, assert_bound_holds, assert_samples_follow
from tests.tiny import SMALL, all_images, random_images, tiny_model

TOY = ImageSpec(1, 1, 2, levels=4)


def config_with(**changes: Any) -> DRAWConfig:
    values: dict[str, Any] = {
        "num_steps": 2,
        "num_hidden": 6,
        "num_latents": 1,
        "read_size": 2,
        "write_size": 2,
        "has_subpixel_scale": True,
        "has_linear_start": False,
        "correction_scale": 2.0,
        "num_start_images": 50,
    }
    return DRAWConfig.model_validate(values | changes)


def tiny_draw() -> DRAW:
    model = tiny_model("draw", SMALL)
    assert isinstance(model, DRAW)
    return model


def toy_model() -> DRAW:
    """Two latents in all, random weights."""
    torch.manual_seed(1)
    model = DRAW(TOY, config_with()).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
        model.log_scale.fill_(-0.5)
        model.first_canvas.mul_(0.3)
        model.head_write.bias[-1] = -1.0
        model.head_posterior.weight.mul_(0.5)
        model.head_posterior.bias.fill_(-0.1)
    return model


def exact_log_prob(model: DRAW) -> Tensor:
    """log P of all 16 images by quadrature over the two latents. Shapes: -> (16,)."""
    axis = torch.linspace(-7, 7, 141, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    log_prior = -0.5 * (z**2).sum(dim=1) - math.log(2 * math.pi) + 2 * math.log(0.1)
    with torch.no_grad():
        mean, log_scale = model.generate(z.T.unsqueeze(-1))
        log_pmf = discretized_logistic_log_pmf(mean, log_scale, TOY.levels)[:, 0, 0]
    first, second = all_images(TOY).long().flatten(1).T
    return torch.logsumexp(log_prior[:, None] + log_pmf[:, 0, first] + log_pmf[:, 1, second], dim=0)


def test_bound_is_below_the_exact_likelihood_and_the_weights_average_to_it() -> None:
    model = toy_model()
    assert_bound_holds(model, all_images(TOY), exact_log_prob(model))


def test_published_size() -> None:
    changes = {"num_steps": 64, "num_hidden": 400, "num_latents": 200, "read_size": 5, "write_size": 5}
    glimpse = 3 * 5 * 5
    encoder = 4 * 400 * (2 * glimpse + 400 + 400 + 1)  # reads image and error, the decoder's state and its own
    decoder = 4 * 400 * (200 + 400 + 1)
    heads = (400 + 1) * (2 * 200 + glimpse + 2 * 5)  # posterior, patch, windows of reading and writing
    assert encoder + decoder + heads == 2_677_685
    first_states, first_canvas, log_scale = 4 * 400, 3072, 3
    plain = DRAW(CIFAR10, config_with(has_subpixel_scale=False, **changes))
    assert plain.num_parameters() == 2_677_685 + first_states + first_canvas + log_scale
    scaled = DRAW(CIFAR10, config_with(**changes))
    assert scaled.num_parameters() == plain.num_parameters() + 401 * glimpse + 3072


def test_posterior_equal_to_the_prior_costs_nothing() -> None:
    model = DRAW(SMALL, config_with(num_latents=5)).double()
    images = random_images(SMALL, 4)
    model.prepare(images, generator_for(0))
    with torch.no_grad():
        for parameter in model.head_posterior.parameters():
            parameter.zero_()
        result = model.log_likelihood(images, generator_for(1))
        for term in ("kl_step_01", "kl_step_02"):
            assert torch.equal(result.terms[term].abs(), torch.zeros(4, dtype=torch.float64))
        assert torch.allclose(model.log_weights(images, generator_for(1)), result.nats, rtol=1e-12)
        model.head_posterior.bias.fill_(0.3)  # mean and log-deviation of every latent
        result = model.log_likelihood(images, generator_for(1))
    by_hand = 0.5 * (0.3**2 + math.exp(0.6) - 1 - 0.6)
    assert torch.allclose(result.terms["kl_step_01"], torch.tensor(-5 * by_hand, dtype=torch.float64))


def test_terms_sum_to_the_bound() -> None:
    model, images = tiny_draw(), random_images(SMALL, 5)
    with torch.no_grad():
        result = model.log_likelihood(images, generator_for(0))
        objective = model.objective(images, generator_for(0), 0.5)
    assert list(result.terms) == ["reconstruction", *(f"kl_step_{step:02d}" for step in range(1, 5))]
    assert all(bool((term < 0).all()) for term in result.terms.values())
    assert torch.allclose(result.nats, objective.nats, rtol=1e-12)
    assert torch.allclose(objective.loss, -objective.nats)


@pytest.mark.parametrize("shares", [1, 2])
def test_training_starts_at_the_bound_of_probabilistic_pca_of_patches(shares: int) -> None:
    spec = ImageSpec(2, 8, 8, levels=256)
    generator = generator_for(0)
    mixing = torch.randn(32, 32, generator=generator, dtype=torch.float64) * torch.linspace(9, 3, 32).double()
    patches = 128 + torch.randn(300, 4, 32, generator=generator, dtype=torch.float64) @ mixing.T
    x = torch.nn.functional.pixel_shuffle(patches.view(300, 2, 2, 32).movedim(-1, 1), 4)
    images = x.round().clamp(0, 255).to(torch.uint8)
    changes = {"num_steps": 4 * shares, "num_latents": -(-31 // shares), "read_size": 4, "write_size": 4}
    model = DRAW(spec, config_with(has_linear_start=True, num_start_images=300, **changes)).double()
    model.prepare(images, generator)
    rows = torch.nn.functional.pixel_unshuffle(images.double(), 4).movedim(1, -1).reshape(-1, 32)
    covariance = torch.cov(rows.T, correction=0) + torch.eye(32, dtype=torch.float64) / 12
    gaussian_nats_per_patch = -0.5 * float(torch.linalg.slogdet(2 * math.pi * math.e * covariance)[1])
    with torch.no_grad():
        elbo = model.log_likelihood(images, generator).nats
    assert float(elbo.mean()) / 128 == pytest.approx(gaussian_nats_per_patch / 32, abs=0.08)


def test_what_the_decoder_expects_moves_the_code_of_a_tile_and_not_its_posterior() -> None:
    torch.manual_seed(0)
    changes = {"num_steps": 8, "num_latents": 10, "read_size": 4, "write_size": 4}
    model = DRAW(SMALL, config_with(has_linear_start=True, **changes)).double()
    model.prepare(random_images(SMALL, 50), generator_for(0))
    assert model.head_expected is not None
    x = 2 * random_images(SMALL, 3, seed=1).double() / 3 - 1
    states = model.encoder.first_state(3), model.decoder.first_state(3)
    with torch.no_grad():
        plain, _ = model.encode(1, x, model.start(3), *states)
        model.head_expected.bias.copy_(torch.linspace(-1, 1, 20))
        moved, _ = model.encode(1, x, model.start(3), *states)
        expected = model.expected(states[1][0])
        assert not torch.allclose(moved.mean, plain.mean, atol=0.1)
        assert torch.allclose(expected.mean + expected.log_std.exp() * moved.mean, plain.mean)
        assert torch.allclose(expected.log_std + moved.log_std, plain.log_std.expand_as(plain.mean))
        assert torch.allclose(moved.kl(DiagonalGaussian.standard(plain.mean)), plain.kl(expected))
        painted, _ = model.paint(1, moved.mean, model.start(3), states[1])
        model.head_expected.bias.zero_()
        reference, _ = model.paint(1, plain.mean, model.start(3), states[1])
    assert torch.allclose(painted[0], reference[0])


def test_first_canvas_is_the_mean_image_and_the_first_scale_that_of_the_data() -> None:
    images = random_images(SMALL, 300)
    model = DRAW(SMALL, config_with(num_start_images=300)).double()
    model.prepare(images, generator_for(0))
    x = 2 * images.double() / 3 - 1
    assert torch.allclose(model.first_canvas[:3], x.mean(dim=0))
    mean, log_scale = model.likelihood(model.start(1))
    assert torch.allclose(log_scale.exp().mean() * math.pi / 3**0.5, (x - mean).std(), rtol=0.01)


def test_the_decoder_moves_both_windows_and_the_error_is_read_through_one() -> None:
    model = tiny_draw()
    h = torch.randn(2, 7, generator=generator_for(0), dtype=torch.float64)
    for is_write in (False, True):
        window = model.window(1, h, is_write)
        assert not torch.allclose(window.columns[0], window.columns[1])
    x = torch.randn(2, 3, 8, 8, generator=generator_for(1), dtype=torch.float64)
    canvas = model.start(2)
    states = model.encoder.first_state(2), model.decoder.first_state(2)
    with torch.no_grad():
        before, _ = model.encode(1, x, canvas, *states)
        moved, _ = model.encode(1, x, (canvas[0] + 0.1, canvas[1]), *states)
    assert not torch.allclose(before.mean, moved.mean)


def test_samples_follow_the_model() -> None:
    model = toy_model()
    assert_samples_follow(model, exact_log_prob(model))


def test_autocast_changes_little_and_stays_finite() -> None:
    torch.manual_seed(0)
    changes = {"num_steps": 4, "read_size": 4, "write_size": 4, "num_latents": 20}
    model = DRAW(SMALL, config_with(has_linear_start=True, **changes))
    model.prepare(random_images(SMALL, 50), generator_for(0))
    assert_autocast_changes_little(model, random_images(SMALL, 4), 0.02)


def test_a_linear_start_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="takes a multiple of 16 steps and write_size 2"):
        DRAW(SMALL, config_with(has_linear_start=True))
    with pytest.raises(ValueError, match="windows of 3 x 3 do not tile 8 x 8"):
        DRAW(SMALL, config_with(has_linear_start=True, read_size=3))
