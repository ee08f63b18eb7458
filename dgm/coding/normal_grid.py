"""A standard normal variable on a fine grid, coded in two parts: a coarse bin by its mass, then the place inside it.

A coder with 24 bits cannot give each of 2^20 places its own probability, but 1/16 of a standard deviation is so short
that the density inside is nearly constant: taking it as constant costs z^2 / 6144 nats at z, 0.0002 on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np

QuantizedGaussian = constriction.stream.model.QuantizedGaussian  # type: ignore[attr-defined]
Uniform = constriction.stream.model.Uniform  # type: ignore[attr-defined]

COARSE_BITS = 4  # a coarse bin is 2^-4 standard deviations wide
_HALF_COARSE = 2.0 ** -(COARSE_BITS + 1)  # the middle one is centred on 0


@dataclass(frozen=True)
class NormalGrid:
    """Places 2^-bits apart, within `reach` standard deviations. Every place keeps a probability above zero.

    bits: at least COARSE_BITS. A reach of many deviations lets improbable values be coded, but every coarse bin costs
    2^-24 of probability.
    """

    bits: int
    reach: int

    @property
    def first(self) -> int:
        """The lowest index."""
        return -self._coarse_reach << (self.bits - COARSE_BITS)

    @property
    def last(self) -> int:
        """The highest index."""
        return ((self._coarse_reach + 1) << (self.bits - COARSE_BITS)) - 1

    def position(self, index: np.ndarray) -> np.ndarray:
        """The middle of each place, in standard deviations. Shapes: int64 (D,) -> float64 (D,)."""
        return (index + 0.5) * 2.0**-self.bits - _HALF_COARSE

    def lower_edge(self, index: np.ndarray) -> np.ndarray:
        """Where each place begins. The first one begins at minus infinity, and behind the last one is the end."""
        edges = index * 2.0**-self.bits - _HALF_COARSE
        return np.where(index <= self.first, -np.inf, np.where(index > self.last, np.inf, edges))

    def index_at(self, x: np.ndarray) -> np.ndarray:
        """The place that holds each x, up to rounding; the nearest one beyond the ends. Shapes: (D,) -> int64 (D,)."""
        return np.clip(np.floor((x + _HALF_COARSE) * 2.0**self.bits), self.first, self.last).astype(np.int64)

    def places_below(self, x: np.ndarray) -> np.ndarray:
        """How far to count: the index of the first place whose middle is at or above x. Shapes: (D,) -> int64 (D,).

        It never falls while x rises. first <= index <= last + 1.
        """
        index = np.ceil((x + _HALF_COARSE) * 2.0**self.bits - 0.5)
        return np.clip(index, self.first, self.last + 1).astype(np.int64)

    def push(self, coder: Any, index: np.ndarray) -> None:
        """Encodes the places onto a stack. Shapes: int64 (D,)."""
        coarse = index >> (self.bits - COARSE_BITS)
        push_uniform(coder, index - (coarse << (self.bits - COARSE_BITS)), np.full(len(index), self._num_inside))
        coder.encode_reverse(coarse.astype(np.int32), self._family())

    def pop(self, coder: Any, count: int) -> np.ndarray:
        """Decodes `count` places from a stack. Shapes: -> int64 (count,)."""
        coarse = np.asarray(coder.decode(self._family(), count), np.int64)
        return (coarse << (self.bits - COARSE_BITS)) + pop_uniform(coder, np.full(count, self._num_inside))

    @property
    def _num_inside(self) -> int:
        return 1 << (self.bits - COARSE_BITS)

    @property
    def _coarse_reach(self) -> int:
        return self.reach << COARSE_BITS

    def _family(self) -> Any:
        return QuantizedGaussian(-self._coarse_reach, self._coarse_reach, 0.0, 2.0**COARSE_BITS)


def push_uniform(coder: Any, values: np.ndarray, sizes: np.ndarray) -> None:
    """Encodes each value in [0, size) at log2(size) bits; a size of 1 costs nothing. Shapes: int64 (D,), (D,)."""
    is_open = sizes > 1
    coder.encode_reverse(values[is_open].astype(np.int32), Uniform(), sizes[is_open].astype(np.int32))


def pop_uniform(coder: Any, sizes: np.ndarray) -> np.ndarray:
    """The inverse. Shapes: int64 (D,) -> int64 (D,)."""
    values = np.zeros(len(sizes), np.int64)
    is_open = sizes > 1
    values[is_open] = coder.decode(Uniform(), sizes[is_open].astype(np.int32))
    return values
