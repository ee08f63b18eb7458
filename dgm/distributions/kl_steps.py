"""Groups the KL terms of many steps into at most 12 named terms of the bound, for the report."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

MAX_TERMS = 12


def kl_step_terms(kl: Tensor) -> Mapping[str, Tensor]:
    """-KL of each step in nats, or of each band of steps where they are many. Shapes: (N, steps) -> (N,) each.

    Names: kl_step_01, ... up to MAX_TERMS steps; kl_steps_01_06, ... beyond.
    """
    num_steps = kl.shape[1]
    band = -(-num_steps // MAX_TERMS)
    terms: dict[str, Tensor] = {}
    for first in range(0, num_steps, band):
        last = min(first + band, num_steps)
        name = f"kl_step_{last:02d}" if band == 1 else f"kl_steps_{first + 1:02d}_{last:02d}"
        terms[name] = -kl[:, first:last].sum(dim=1)
    return terms
