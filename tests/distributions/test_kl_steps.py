"""Terms of a bound by step: every step in one term, few enough to read."""

from __future__ import annotations

import pytest
import torch

from dgm.distributions.kl_steps import MAX_TERMS, kl_step_terms


@pytest.mark.parametrize("num_steps", [1, 12, 13, 16, 32, 64])
def test_terms_hold_every_step_once_and_are_few(num_steps: int) -> None:
    kl = torch.arange(2 * num_steps, dtype=torch.float64).view(2, num_steps) + 1
    terms = kl_step_terms(kl)
    assert len(terms) <= MAX_TERMS
    assert list(terms) == sorted(terms)
    assert torch.equal(-torch.stack(list(terms.values())).sum(dim=0), kl.sum(dim=1))


def test_names() -> None:
    assert list(kl_step_terms(torch.zeros(1, 2))) == ["kl_step_01", "kl_step_02"]
    many = list(kl_step_terms(torch.zeros(1, 25)))
    assert (many[0], many[-2], many[-1]) == ("kl_steps_01_03", "kl_steps_22_24", "kl_steps_25_25")
