"""RIDE: a density that integrates to one, causal, started at the linear predictor, sampled from what is scored."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dgm.dequantization import dequantize
from dgm.models.ride.conditional_whitening import ConditionalWhitening
from dgm.models.ride.model import RIDE, RIDEConfig
from dgm.seeds import generator_for
from dgm.types import ImageSpec

TINY = RIDEConfig(
    neighbourhood_rows=1,
    neighbourhood_reach=1,
    num_hidden=3,
    num_layers=2,
    num_components=2,
    num_scales=2,
    num_gate_features=3,
    num_whitening_images=2000,
    num_start_images=100,
)
SPEC = ImageSpec(channels=3, height=5, width=4, levels=16)


def smooth_images(spec: ImageSpec, count: int) -> Tensor:
    """Channels and neighbours that predict each other, and noise. Shapes: -> uint8 (count, C, H, W)."""
    steps = torch.randn(count, 1, spec.height, spec.width, generator=generator_for(1))
    field = steps.cumsum(dim=2).cumsum(dim=3) + 0.3 * torch.randn(count, *spec.shape, generator=generator_for(2))
    return (field + spec.levels / 2).clamp(0, spec.levels - 1).to(torch.uint8)


def random_model(spec: ImageSpec = SPEC, config: RIDEConfig = TINY) -> RIDE:
    torch.manual_seed(0)
    model = RIDE(spec, config).double()
    model.prepare(smooth_images(spec, 400), generator_for(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def test_density_of_two_pixels_integrates_to_one() -> None:
    spec = ImageSpec(channels=1, height=1, width=2, levels=8)
    model, step = random_model(spec), 0.25
    axis = torch.arange(-30.0, 38.0, step, dtype=torch.float64)
    with torch.no_grad():
        total = sum(float(model.log_density(torch.cartesian_prod(a, axis).view(-1, 1, 1, 2)).exp().sum())
                    for a in axis.split(400))  # fmt: skip
    assert total * step**2 == pytest.approx(1.0, abs=2e-3)


def test_whitening_counts_its_jacobian_and_reads_only_the_past() -> None:
    whitening = ConditionalWhitening(SPEC, rows=1, reach=1).double()
    whitening.fit(dequantize(smooth_images(SPEC, 300), generator_for(3)).split(100))
    x = 16 * torch.rand(1, *SPEC.shape, generator=generator_for(4), dtype=torch.float64)

    def whitened(flat: Tensor) -> Tensor:  # both sides pixel by pixel
        return whitening(flat.view(1, SPEC.num_pixels, SPEC.channels).transpose(1, 2).view(1, *SPEC.shape))[1].flatten()

    flat = x.flatten(2).transpose(1, 2).flatten()
    jacobian = torch.autograd.functional.jacobian(whitened, flat)
    assert torch.linalg.slogdet(jacobian)[1] == pytest.approx(float(whitening(x)[2]), abs=1e-9)
    assert not jacobian.triu(1).any()
    features = torch.autograd.functional.jacobian(lambda v: whitening(v)[0].sum(dim=(1, 2)), x)
    assert isinstance(features, Tensor)
    by_pixel = features[:, 0].flatten(2).abs().sum(dim=1)  # (pixel of the features, pixel of x)
    assert not by_pixel.triu().any()
    assert by_pixel.tril(-1).any()


def test_whitened_pixels_have_unit_covariance_and_no_linear_trace_of_their_neighbours() -> None:
    whitening = ConditionalWhitening(SPEC, rows=1, reach=1).double()
    x = dequantize(smooth_images(SPEC, 1000), generator_for(3), torch.float64)
    whitening.fit(x.split(100))
    features, z, _ = whitening(x)
    pixel = 2 * SPEC.width + 2  # away from the borders
    inside = (whitening.class_of_pixel == whitening.class_of_pixel[pixel]).nonzero().flatten()
    pooled = torch.cat([z[inside], features[inside][..., : whitening.num_inputs]], dim=-1).flatten(0, 1).T.cov()
    torch.testing.assert_close(pooled[:3, :3], torch.eye(3, dtype=torch.float64), rtol=0, atol=0.01)
    torch.testing.assert_close(pooled[:3, 3:], torch.zeros_like(pooled[:3, 3:]), rtol=0, atol=0.01)


def test_later_pixels_do_not_move_the_terms_of_earlier_ones() -> None:
    model = random_model()
    x = 16 * torch.rand(1, *SPEC.shape, generator=generator_for(4), dtype=torch.float64)

    def terms(v: Tensor) -> Tensor:
        h, z, _ = model.whitening(v)
        for layer in model.layers:
            h = layer(h)
        return model.mixture.log_prob(z, h)[:, 0]

    jacobian = torch.autograd.functional.jacobian(terms, x)[:, 0].flatten(2).abs().sum(dim=1)
    assert not jacobian.triu(1).any()
    assert (jacobian.tril(-1)[-1, :-1] > 0).all()  # the last pixel sees all: the LSTM reaches past its neighbourhood


def test_training_starts_at_the_linear_predictor_with_fitted_scales() -> None:
    torch.manual_seed(0)
    model = RIDE(SPEC, TINY)
    calm, noisy = smooth_images(SPEC, 1000), smooth_images(SPEC, 1000)
    noise = torch.randint(-4, 5, noisy.shape, generator=generator_for(2))
    images = torch.cat([calm, (noisy.int() + noise).clamp(0, SPEC.levels - 1).to(torch.uint8)])
    model.prepare(images, generator_for(0))
    nats = model.log_likelihood(images, generator_for(1)).nats.detach().mean()
    # a joint Gaussian over all sub-pixels knows every linear dependence, but has one scale
    x = dequantize(images, generator_for(1), torch.float64).flatten(1)
    size = SPEC.num_subpixels
    gaussian = -0.5 * (torch.linalg.slogdet(x.T.cov())[1] + size + size * math.log(2 * math.pi))
    assert float(nats) > float(gaussian) + 0.04 * size


@torch.no_grad()
def test_samples_are_scored_by_the_density_they_were_drawn_from() -> None:
    # teacher-forced on its own samples, the model predicts the mean of each pixel, and scores the pixel as highly as a
    # fresh draw from the same conditional
    model = random_model()
    x = model.sample_density(3000, generator_for(6), 1.0)
    h, z, _ = model.whitening(x)
    for layer in model.layers:
        h = layer(h)
    gates = torch.softmax(model.mixture.gate_logits(h).flatten(-2), dim=-1).unflatten(-1, (2, 2))
    mean = (gates.sum(dim=-1, keepdim=True) * model.mixture.means(h)).sum(dim=-2)
    surprise = z - mean
    error = surprise.mean(dim=1) / surprise.std(dim=1) * math.sqrt(3000)
    assert float(error.abs().max()) < 4.5
    fresh = model.mixture.sample(h.flatten(0, 1), generator_for(7)).view_as(z)
    scored, expected = model.mixture.log_prob(z, h), model.mixture.log_prob(fresh, h)
    gap = (scored - expected).mean(dim=1) / (scored - expected).std(dim=1) * math.sqrt(3000)
    assert float(gap.abs().max()) < 4.5


def test_sampling_steps_are_the_layers_of_scoring() -> None:
    model = random_model()
    layer = model.layers[0]
    features = torch.randn(SPEC.num_pixels, 2, model.whitening.num_features, dtype=torch.float64)
    h = layer(features)
    zero = torch.zeros(2, 3, dtype=torch.float64)
    states: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for row in range(SPEC.height):
        for column in range(SPEC.width):
            left, above = states.get((row, column - 1), (zero, zero)), states.get((row - 1, column), (zero, zero))
            pixel = row * SPEC.width + column
            states[row, column] = layer.step(features[pixel], left, above)  # type: ignore[operator]
            torch.testing.assert_close(states[row, column][0], h[pixel], rtol=0, atol=1e-12)
