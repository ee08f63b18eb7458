"""The softmax head: zero at first, degrees respected, steps that move neighbouring levels."""

from __future__ import annotations

import pytest
import torch

from dgm.distributions.categorical import log_pmf, log_prob
from dgm.nets.masked_conv import feature_degrees, logit_degrees
from dgm.nets.softmax_head import CachedSoftmaxHead, CosineLogits, SoftmaxHead
from dgm.types import ImageSpec

SPEC = ImageSpec(3, 2, 2, 5)


def randomized_head() -> SoftmaxHead:
    torch.manual_seed(0)
    head = SoftmaxHead(feature_degrees(4, SPEC), 7, SPEC).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    return head


def test_logits_are_zero_before_training() -> None:
    assert not SoftmaxHead(feature_degrees(4, SPEC), 7, SPEC).logits(torch.randn(2, 4, 2, 2)).any()


def test_one_step_towards_a_value_favours_its_neighbours_over_distant_levels() -> None:
    spec = ImageSpec(1, 1, 1, 256)
    layer = CosineLogits(feature_degrees(1, spec), spec)
    log_prob(layer(torch.ones(1, 1, 1, 1)), torch.full((1, 1, 1, 1), 100)).sum().backward()
    with torch.no_grad():
        for parameter in layer.parameters():
            assert parameter.grad is not None
            parameter += 0.01 * parameter.grad
        logits = layer(torch.ones(1, 1, 1, 1)).flatten()
    assert logits.argmax() == 100
    assert logits[[95, 105]].min() > logits[[0, 50, 150, 255]].max() + 0.1 * (logits[100] - logits[255])


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_logits_see_features_up_to_their_degree(degree: int) -> None:
    head = randomized_head()
    with torch.no_grad():  # positive: no ReLU hides a path
        for parameter in head.parameters():
            parameter.abs_()
    features = torch.ones(1, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    head.logits(features)[0, 0, 0, degree].square().sum().backward()
    assert features.grad is not None
    is_seen = features.grad.flatten() != 0
    assert torch.equal(is_seen, feature_degrees(4, SPEC) <= degree)


def test_weight_rows_are_channels_then_levels() -> None:
    weight = randomized_head().head_logits.masked_weight()
    rows_of_red = weight[logit_degrees(SPEC) == 0]
    assert rows_of_red[:, feature_degrees(7, SPEC) > 0].abs().sum() == 0
    assert rows_of_red.abs().sum() > 0


def test_cached_equals_whole() -> None:
    head = randomized_head()
    features = torch.randn(3, 4, 1, 1, dtype=torch.float64)
    whole = log_pmf(head.logits(features))[:, 0, 0]
    with torch.no_grad():
        cached = CachedSoftmaxHead(head, 3, None)
        for degree in range(3):
            of_degree = cached.log_pmf(features[:, feature_degrees(4, SPEC) == degree, 0, 0], degree)
            assert torch.allclose(of_degree, whole[:, degree], rtol=0, atol=1e-12)
