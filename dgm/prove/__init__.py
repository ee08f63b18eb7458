"""Proofs for models that are not part of this benchmark: `dgm prove FILE.py:NAME --weights W`. See docs/prove.md."""

from __future__ import annotations

from dgm.prove.adapters import LogisticMixtures, Logits, PixelMixture
from dgm.prove.opaque import Elbo, Flow, LogProb

__all__ = ["Elbo", "Flow", "LogProb", "LogisticMixtures", "Logits", "PixelMixture"]
