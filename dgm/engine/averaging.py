"""Exponential moving average of the weights: what is evaluated, sampled from and saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Average with decay min(decay, (1 + step) / (10 + step)), so that early steps do not linger.

    Source: Polyak averaging as used by Salimans et al. (2017), arXiv 1701.05517; Differs: the warm-up.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = dict(model.named_parameters())
        self.average = {name: parameter.detach().clone() for name, parameter in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        if self.average:
            live = [self.live[name] for name in self.average]
            torch._foreach_lerp_(list(self.average.values()), live, 1 - decay)  # type: ignore[attr-defined]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model computes with the averaged weights."""
        kept = {name: parameter.detach().clone() for name, parameter in self.live.items()}
        self._load(self.average)
        try:
            yield
        finally:
            self._load(kept)

    @torch.no_grad()
    def _load(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.live.items():
            parameter.copy_(values[name])
