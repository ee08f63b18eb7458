"""Conditionals in raster order: keeps the position, while the network's cached form supplies the parts."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from dgm.model_api.ancestral import Conditionals
from dgm.types import ImageSpec


class RasterConditionals(Conditionals):
    """Row by row, pixel by pixel, channel by channel. A subclass fills its caches, then calls `begin`."""

    @torch.no_grad()
    def begin(self, spec: ImageSpec) -> None:
        """Computes the first conditional."""
        self.spec = spec
        self.column = self.channel = 0
        self.start_row()
        self.next_log_pmf = self.advance(0, 0)

    @abstractmethod
    def accept(self, values: Tensor, column: int, channel: int) -> None:
        """Takes in the levels of one sub-pixel of the current row. Shapes: values int64 (N,)."""

    @abstractmethod
    def start_row(self) -> None:
        """Called before the first pixel of each row; the row above, if any, is finished."""

    @abstractmethod
    def advance(self, column: int, channel: int) -> Tensor:
        """Computes what the next sub-pixel adds; its natural-log probabilities. Shapes: -> (N, levels)."""

    def log_pmf(self) -> Tensor:
        return self.next_log_pmf

    @torch.no_grad()
    def push(self, values: Tensor) -> None:
        self.accept(values, self.column, self.channel)
        self.channel += 1
        if self.channel == self.spec.channels:
            self.column, self.channel = self.column + 1, 0
        if self.column == self.spec.width:
            self.column = 0
            self.start_row()
        self.next_log_pmf = self.advance(self.column, self.channel)
