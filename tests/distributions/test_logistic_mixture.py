"""The logistic mixture: enumeration, chain rule, hand value, extreme parameters."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from dgm.distributions.logistic_mixture import (
    LogisticMixture,
    MixtureChain,
    initial_mixture_parameters,
    num_mixture_parameters,
)


def random_mixture(num_pixels: int, channels: int, num_mixtures: int, levels: int, seed: int = 0) -> LogisticMixture:
    generator = torch.Generator().manual_seed(seed)
    size = num_mixture_parameters(channels, num_mixtures)
    parameters = torch.randn(num_pixels, size, generator=generator, dtype=torch.float64) * 2.0
    return LogisticMixture.from_parameters(parameters, channels, levels)


def all_pixels(channels: int, levels: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(levels), repeat=channels)))


@pytest.mark.parametrize(("channels", "levels"), [(1, 8), (2, 5), (3, 8), (4, 3)])
def test_joint_probabilities_sum_to_one(channels: int, levels: int) -> None:
    values = all_pixels(channels, levels)
    mixture = random_mixture(1, channels, 3, levels)
    total = mixture.log_prob(values).logsumexp(dim=0).exp()
    assert total.item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("log_scale", [-40.0, -7.0, 3.0])
@pytest.mark.parametrize("mean", [-4.0, 0.2, 6.0])
def test_conditionals_sum_to_one_at_extremes(mean: float, log_scale: float) -> None:
    parameters = torch.zeros(1, 10, 2, dtype=torch.float64)
    parameters[:, 1:4], parameters[:, 4:7], parameters[:, 7:] = mean, log_scale, 20.0
    mixture = LogisticMixture.from_parameters(parameters.flatten(1), channels=3, levels=256)
    assert mixture.log_scales.min().item() == max(log_scale, -7.0)
    log_pmf = mixture.log_pmf(torch.tensor([[0, 255, 13]]))
    torch.testing.assert_close(log_pmf.logsumexp(-1), torch.zeros(1, 3, dtype=torch.float64), atol=1e-11, rtol=0.0)


def test_chain_and_conditionals_and_joint_agree() -> None:
    mixture = random_mixture(50, 3, 4, 256)
    values = torch.randint(256, (50, 3), generator=torch.Generator().manual_seed(1))
    log_pmf, chain = mixture.log_pmf(values), MixtureChain(mixture)
    for channel in range(3):
        torch.testing.assert_close(chain.log_pmf(), log_pmf[:, channel], atol=1e-10, rtol=0.0)
        chain.push(values[:, channel])
    gathered = log_pmf.gather(-1, values.unsqueeze(-1)).squeeze(-1).sum(dim=-1)
    torch.testing.assert_close(gathered, mixture.log_prob(values), atol=1e-10, rtol=0.0)


def test_conditionals_follow_bayes_rule_on_the_joint() -> None:
    mixture, values = random_mixture(1, 3, 3, 4), all_pixels(3, 4)
    joint = mixture.log_prob(values).exp().view(4, 4, 4)
    log_pmf = mixture.log_pmf(torch.tensor([[2, 3, 0]]))[0]
    torch.testing.assert_close(log_pmf[0].exp(), joint.sum((1, 2)))
    torch.testing.assert_close(log_pmf[1].exp(), joint[2].sum(1) / joint[2].sum())
    torch.testing.assert_close(log_pmf[2].exp(), joint[2, 3] / joint[2, 3].sum())


def test_hand_value_of_a_pixel() -> None:
    """Means at the middle of the grid, scale of one grey level, and blue shifted by tanh(c) x_red."""
    parameters = torch.zeros(1, 10, 1, dtype=torch.float64)
    parameters[:, 4:7] = -math.log(127.5)
    parameters[:, 8] = math.atanh(0.5)
    mixture = LogisticMixture.from_parameters(parameters.flatten(1), channels=3, levels=256)

    def log_probability(offset: float) -> float:
        return math.log(1 / (1 + math.exp(-offset - 0.5)) - 1 / (1 + math.exp(-offset + 0.5)))

    assert math.exp(log_probability(0.5)) == pytest.approx(0.231059, abs=1e-6)
    expected = log_probability(2.5) + log_probability(0.5) + log_probability(1.5 - 0.5 * 2.5)
    assert mixture.log_prob(torch.tensor([[130, 128, 129]])).item() == pytest.approx(expected, abs=1e-9)


def test_half_precision_parameters_are_widened() -> None:
    parameters = torch.randn(4, num_mixture_parameters(3, 5), generator=torch.Generator().manual_seed(0)).bfloat16()
    values = torch.tensor([[3, 200, 128]])
    widened = LogisticMixture.from_parameters(parameters, 3, 256).log_prob(values)
    expected = LogisticMixture.from_parameters(parameters.double(), 3, 256).log_prob(values)
    torch.testing.assert_close(widened.double(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_initial_parameters_let_each_channel_follow_the_one_before(channels: int) -> None:
    parameters = initial_mixture_parameters(channels, 2)
    mixture = LogisticMixture.from_parameters(parameters, channels, 256)
    values = torch.full((channels,), 255)
    expected = [0.0] + [math.tanh(1.0)] * (channels - 1)
    torch.testing.assert_close(mixture._conditional_means(values)[:, 1], torch.tensor(expected))
    assert len(parameters) == num_mixture_parameters(channels, 2)
    assert mixture.log_scales.unique().item() == -1.5
