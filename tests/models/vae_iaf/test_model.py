"""VAE with IAF: published size, weights that average to the exact likelihood, free bits in the loss alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dgm.distributions.discretized_logistic import discretized_logistic_log_pmf
from dgm.distributions.precision import sum_per_image
from dgm.models.vae_iaf.model import VAEIAF, VAEIAFConfig
from dgm.seeds import generator_for
from dgm.types import CIFAR10, ImageSpec
from tests.bounds import assert_autocast_changes_little
from tests.tiny import SMALL, all_images, random_images, tiny_model

TOY = ImageSpec(1, 1, 2, levels=4)


def config_with(**changes: Any) -> VAEIAFConfig:
    values: dict[str, Any] = {
        "num_layers": 1,
        "num_features": 6,
        "num_latents": 1,
        "stem_stride": 1,
        "num_hidden_layers": 2,
        "free_nats_per_map": 0.0,
        "has_subpixel_scale": True,
        "has_linear_start": False,
        "num_start_images": 20,
    }
    return VAEIAFConfig.model_validate(values | changes)


def toy_model() -> VAEIAF:
    """Two latents in all, random weights, a posterior of the flow's making."""
    torch.manual_seed(1)
    model = VAEIAF(TOY, config_with()).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        model.log_scale.fill_(1.0)
        model.layers[0].flow.last.weight.mul_(3)  # type: ignore[union-attr]
    return model


def exact_log_prob(model: VAEIAF) -> Tensor:
    """log P of all 16 images by quadrature over the two latents. Shapes: -> (16,)."""
    axis = torch.linspace(-9, 9, 161, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis).view(-1, 1, 1, 2)
    layer = model.layers[0]
    with torch.no_grad():
        h = model.top.expand(len(z), -1, 1, 2)
        prior, _, deterministic = layer.read(h)  # type: ignore[operator]
        log_prior = sum_per_image(prior.log_density(z)) + 2 * math.log(18 / 160)
        mean, log_scale = model.decode(layer.write(h, z, deterministic), [z])  # type: ignore[operator]
        log_pmf = discretized_logistic_log_pmf(mean, log_scale, TOY.levels)[:, 0, 0]
    first, second = all_images(TOY).long().flatten(1).T
    return torch.logsumexp(log_prior[:, None] + log_pmf[:, 0, first] + log_pmf[:, 1, second], dim=0)


def test_bound_is_below_the_exact_likelihood_and_the_weights_average_to_it() -> None:
    model, images = toy_model(), all_images(TOY)
    exact = exact_log_prob(model)
    assert float(exact.exp().sum()) == pytest.approx(1.0, abs=1e-6)
    with torch.no_grad():
        weights = model.log_weights(images.repeat(3000, 1, 1, 1), generator_for(0)).view(3000, 16)
    assert bool((weights.mean(dim=0) < exact).all())
    iw_50 = (weights.view(60, 50, 16).logsumexp(dim=1) - math.log(50)).mean(dim=0)
    assert bool(((iw_50 > weights.mean(dim=0)) & (iw_50 < exact + 0.02)).all())
    ratios = (weights - exact).exp()  # their mean is 1, whatever the posterior
    error = ratios.std(dim=0) / 3000**0.5
    assert bool(((ratios.mean(dim=0) - 1).abs() < 5 * error).all())
    assert float(error.max()) < 0.1


def test_published_size() -> None:
    config = config_with(num_layers=20, num_features=160, num_latents=32, stem_stride=2, has_subpixel_scale=False)
    unread = 2 * (160 * 160 * 9 + 160)  # the authors' topmost layer also computes features for a layer above it
    assert VAEIAF(CIFAR10, config).num_parameters() + unread == pytest.approx(41.53e6, rel=0.001)


def test_terms_sum_to_the_bound_and_to_the_weight() -> None:
    model = tiny_model("vae_iaf", SMALL)
    assert isinstance(model, VAEIAF)
    images = random_images(SMALL, 5)
    with torch.no_grad():
        result = model.log_likelihood(images, generator_for(0))
        assert torch.allclose(result.nats, model.log_weights(images, generator_for(0)), rtol=1e-12)
    assert list(result.terms) == ["reconstruction", "kl_layer_01", "kl_layer_02"]
    assert torch.allclose(result.nats, torch.stack(list(result.terms.values())).sum(dim=0), rtol=1e-12)
    assert all(float(term.mean()) < 0 for term in result.terms.values())


def test_free_bits_are_in_the_loss_and_never_in_the_measure() -> None:
    images = random_images(SMALL, 4)
    losses, nats = [], []
    for free in (0.0, 3.0):
        torch.manual_seed(0)
        model = VAEIAF(SMALL, config_with(num_layers=2, num_latents=5, stem_stride=2, free_nats_per_map=free)).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        _, kl_maps = model.draw(images, model.noise(4, generator_for(1)))
        objective = model.objective(images, generator_for(1), 0.5)
        by_hand = sum(max(free, float(one)) for maps in kl_maps for one in maps.mean(dim=0).detach())
        reconstruction = model.bound_terms(images, generator_for(1))["reconstruction"].detach().mean()
        assert float(objective.loss.detach().mean()) == pytest.approx(by_hand - float(reconstruction), rel=1e-9)
        losses.append(float(objective.loss.detach().mean()))
        nats.append(objective.nats)
    assert torch.equal(nats[0], nats[1])
    assert losses[1] > losses[0] + 1
    assert losses[1] > -float(nats[1].mean()) + 1


def test_training_starts_at_the_bound_of_the_linear_model() -> None:
    torch.manual_seed(0)
    config = config_with(num_layers=3, num_latents=4, stem_stride=2, has_linear_start=True, num_start_images=100)
    model = VAEIAF(SMALL, config).double()
    images = random_images(SMALL, 100)
    model.prepare(images, generator_for(0))
    assert model.linear is not None
    posterior = model.linear.posterior(model.linear.coefficients(2 * images.double() / 3 - 1))
    log_std = posterior.log_std.expand_as(posterior.mean)
    kl = sum_per_image(0.5 * (posterior.mean**2 + (2 * log_std).exp() - 1) - log_std)
    with torch.no_grad():
        _, kl_maps = model.draw(images.repeat(20, 1, 1, 1), model.noise(2000, generator_for(1)))
    drawn = torch.cat(kl_maps, dim=1).sum(dim=1).view(20, 100)
    assert torch.allclose(drawn.mean(), kl.mean(), rtol=0.01)


def test_images_in_a_batch_do_not_touch_each_other() -> None:
    model = tiny_model("vae_iaf", SMALL)
    assert isinstance(model, VAEIAF)
    images, noise = random_images(SMALL, 5), model.noise(5, generator_for(9))
    with torch.no_grad():
        together, maps_together = model.draw(images, noise)
        alone, maps_alone = model.draw(images[3:4], noise[:, 3:4])
    assert torch.allclose(together[3:4], alone, rtol=1e-12)
    assert torch.allclose(torch.stack(maps_together)[:, 3:4], torch.stack(maps_alone), rtol=1e-9, atol=1e-12)


def test_autocast_changes_little_and_stays_finite() -> None:
    torch.manual_seed(0)
    model = VAEIAF(SMALL, config_with(num_layers=2, num_latents=6, stem_stride=2, has_linear_start=True))
    model.prepare(random_images(SMALL, 50), generator_for(0))
    assert_autocast_changes_little(model, random_images(SMALL, 4), 0.05)


def test_a_stride_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="stem_stride 3 does not divide 8 x 8"):
        VAEIAF(SMALL, config_with(stem_stride=3))
