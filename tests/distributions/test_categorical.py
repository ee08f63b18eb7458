"""The softmax over levels against hand values and a float64 oracle."""

from __future__ import annotations

import math

import torch

from dgm.distributions.categorical import log_pmf, log_prob


def test_zero_logits_are_uniform() -> None:
    # 2x2 RGB image, 256 levels: 12 ln 256 nats
    values = torch.randint(0, 256, (2, 2, 2, 3), generator=torch.Generator().manual_seed(0))
    nats = log_prob(torch.zeros(2, 2, 2, 3, 256), values)
    assert torch.allclose(nats, torch.full((2,), -66.5421293, dtype=torch.float64), atol=1e-5)


def test_hand_value() -> None:
    logits = torch.tensor([[[0.0, math.log(3.0)]]])  # P = 1/4, 3/4
    assert math.isclose(float(log_prob(logits, torch.tensor([[1]]))), math.log(0.75), rel_tol=1e-6)


def test_equals_gathered_log_pmf_in_float64() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 5 * torch.randn(3, 4, 2, 7, generator=generator, dtype=torch.float64)
    values = torch.randint(0, 7, (3, 4, 2), generator=generator)
    picked = log_pmf(logits).gather(-1, values.unsqueeze(-1)).sum(dim=(1, 2, 3))
    assert torch.allclose(log_prob(logits, values), picked, rtol=0, atol=1e-12)
    assert torch.allclose(log_pmf(logits).exp().sum(-1), torch.ones(3, 4, 2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_sums_in_float64_and_lifts_half_precision() -> None:
    # 2^24 + 1 is no float32: adding a small term to a large sum must not lose it
    logits = torch.zeros(1, 2, 2)
    logits[0, 0, 1] = 2.0**24
    assert float(log_prob(logits, torch.tensor([[0, 0]]))) == -(2.0**24) - float(torch.tensor(2.0).log())
    half = torch.zeros(1, 3, 5, dtype=torch.bfloat16)
    assert log_pmf(half).dtype == torch.float32
    assert log_prob(half, torch.zeros(1, 3, dtype=torch.uint8)).dtype == torch.float64


def test_gradient_is_one_hot_minus_probabilities() -> None:
    logits = torch.tensor([[[0.3, -1.0, 2.0]]], dtype=torch.float64, requires_grad=True)
    log_prob(logits, torch.tensor([[2]])).sum().backward()
    expected = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) - logits.detach()[0, 0].softmax(-1)
    assert logits.grad is not None and torch.allclose(logits.grad[0, 0], expected)
