"""The incremental form of a model that gives a pixel's channels one logistic mixture: the network runs once a pixel."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.distributions.logistic_mixture import LogisticMixture, MixtureChain
from dgm.model_api.ancestral import Conditionals
from dgm.types import ImageSpec


class MixtureConditionals(Conditionals):
    """The mixture's chain serves the channels of the pixel; `row` and `column` are those of the next pixel."""

    def __init__(self, spec: ImageSpec, dtype: torch.dtype) -> None:
        self.spec, self.dtype = spec, dtype
        self.row, self.column = 0, 0
        self._values: list[Tensor] = []
        self._chain: MixtureChain | None = None

    @abstractmethod
    def next_mixture(self) -> LogisticMixture:
        """Of the next pixel, (N,) of them."""

    @abstractmethod
    def push_pixel(self, x: Tensor) -> None:
        """Fixes the next pixel. Shapes: (N, C) in [-1, 1] units."""

    @torch.no_grad()
    def log_pmf(self) -> Tensor:
        return self._current_chain().log_pmf()

    @torch.no_grad()
    def push(self, values: Tensor) -> None:
        self._current_chain().push(values)
        self._values.append(unit_from_levels(values, self.spec.levels, self.dtype))
        if len(self._values) == self.spec.channels:
            self.push_pixel(torch.stack(self._values, dim=1))
            self.column = (self.column + 1) % self.spec.width
            self.row += self.column == 0
            self._values, self._chain = [], None

    def _current_chain(self) -> MixtureChain:
        if self._chain is None:
            self._chain = MixtureChain(self.next_mixture())
        return self._chain
