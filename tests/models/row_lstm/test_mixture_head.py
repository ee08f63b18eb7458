"""The mixture head: degrees respected, probabilities that sum to one, spread components, cached form."""

from __future__ import annotations

import pytest
import torch

from dgm.models.row_lstm.mixture_head import MixtureHead
from dgm.nets.masked_conv import feature_degrees
from dgm.types import ImageSpec
from tests.tiny import random_images

SPEC = ImageSpec(3, 2, 2, 5)
DEGREES = feature_degrees(4, SPEC)


def randomized_head() -> MixtureHead:
    torch.manual_seed(0)
    head = MixtureHead(DEGREES, 7, SPEC, 3).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    return head


def test_components_start_spread_over_the_levels() -> None:
    mixture = MixtureHead(DEGREES, 7, SPEC, 4).mixture(torch.randn(1, 4, 2, 2))
    expected = torch.tensor([-0.75, -0.25, 0.25, 0.75]).expand(mixture.means[..., 0, :].shape)
    torch.testing.assert_close(mixture.means[..., 0, :], expected)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_conditionals_see_features_up_to_their_degree(degree: int) -> None:
    head = randomized_head()
    with torch.no_grad():  # positive: no ReLU hides a path
        for parameter in head.parameters():
            parameter.abs_()
    features = torch.ones(1, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    head.logits(features)[0, 0, 0, degree, 1].backward()
    assert features.grad is not None
    assert torch.equal(features.grad.flatten() != 0, degree >= DEGREES)


def test_log_prob_gathers_from_a_normalised_log_pmf() -> None:
    head, images = randomized_head(), random_images(SPEC, 2)
    features = torch.randn(2, 4, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        log_pmf = head.logits(features).permute(0, 3, 1, 2, 4)
        values = images.flatten(2).transpose(1, 2)
        log_prob = head.nats_of_pixels(features.flatten(2).transpose(1, 2), values)
    torch.testing.assert_close(log_pmf.exp().sum(dim=-1), torch.ones(2, 3, 2, 2, dtype=torch.float64))
    gathered = log_pmf.gather(-1, images.long().unsqueeze(-1)).flatten(1).sum(dim=1)
    torch.testing.assert_close(log_prob, gathered, rtol=0, atol=1e-10)


def test_cached_equals_whole() -> None:
    head = randomized_head()
    features = torch.randn(3, 4, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        whole = head.logits(features)[:, 0, 0]
        cached = head.cached(3, None)
        for degree in range(3):
            log_pmf = cached.log_pmf(features[:, degree == DEGREES, 0, 0], degree)
            torch.testing.assert_close(log_pmf, whole[:, degree], rtol=0, atol=1e-10)
