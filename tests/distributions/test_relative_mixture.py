"""A mixture around a prediction: where zeros put it, and that both of its forms are one distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.distributions.logistic_mixture import num_mixture_parameters
from dgm.distributions.relative_mixture import RelativeMixture

CHANNELS, COMPONENTS, PIXELS, LEVELS = 3, 2, 40, 16


def drawn(size: float) -> tuple[RelativeMixture, Tensor, Tensor]:
    """A mixture, whose network puts out numbers of this size, the fitted coefficients, and pixels (P, C)."""
    noise = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=noise, dtype=torch.float64)

    outputs = size * normal(num_mixture_parameters(CHANNELS, 1), COMPONENTS, PIXELS)
    coefficients = normal(CHANNELS, CHANNELS)
    prediction, scale = 0.5 * normal(CHANNELS, PIXELS), 0.2 * normal(PIXELS).exp()
    values = torch.randint(LEVELS, (PIXELS, CHANNELS), generator=noise)
    return RelativeMixture.from_outputs(outputs, prediction, scale, coefficients, LEVELS), coefficients, values


def test_both_forms_are_one_distribution() -> None:
    relative, _, values = drawn(1.0)
    x = unit_from_levels(values, LEVELS, torch.float64).T
    torch.testing.assert_close(relative.log_prob(x), relative.mixture().log_prob(values), rtol=0, atol=1e-8)


def test_axes_of_pixels_may_be_more_than_one() -> None:
    relative, _, values = drawn(1.0)
    x = unit_from_levels(values, LEVELS, torch.float64).T
    prediction, logits, means, log_scales, coefficients = (
        part.unflatten(-1, (8, 5))
        for part in (relative.prediction, relative.logits, relative.means, relative.log_scales, relative.coefficients)
    )
    folded = RelativeMixture(prediction, logits, means, log_scales, coefficients, LEVELS)
    torch.testing.assert_close(folded.log_prob(x.unflatten(-1, (8, 5))).flatten(), relative.log_prob(x))


def test_outputs_of_zero_say_the_prediction_given_the_residuals_before() -> None:
    relative, coefficients, values = drawn(0.0)
    x = unit_from_levels(values, LEVELS, torch.float64).T
    expected = relative.prediction + coefficients.tril(-1) @ (x - relative.prediction)
    mixture = relative.mixture()
    for channel in range(CHANNELS):
        earlier = torch.zeros(PIXELS, COMPONENTS, dtype=torch.float64)
        for other in range(channel):
            pair = channel * (channel - 1) // 2 + other
            earlier += mixture.coefficients[:, pair] * x[other].unsqueeze(1)
        found = mixture.means[:, channel] + earlier
        torch.testing.assert_close(found, expected[channel].unsqueeze(1).expand(-1, COMPONENTS))
