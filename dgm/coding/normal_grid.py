"""A standard normal variable on a fine grid, coded in two parts: a coarse bin by its mass, then the place inside it.

A coder with 24 bits cannot give each of 2^20 places its own probability, but 1/16 of a standard deviation is so short
that the density inside is nearly constant: taking it as constant costs z^2 / 6144 nats at z, 0.0002 on average. Nor can
it give a bin beyond 5 deviations its own: "beyond 4 deviations" is one symbol, then comes the bin within the next
deviation or "beyond 5", and so on, each by its conditional probability.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import constriction
import numpy as np

Categorical = constriction.stream.model.Categorical  # type: ignore[attr-defined]
Uniform = constriction.stream.model.Uniform  # type: ignore[attr-defined]

COARSE_BITS = 4  # a coarse bin is 2^-4 standard deviations wide
HALF_COARSE = 2.0 ** -(COARSE_BITS + 1)  # the middle one is centred on 0
PER_DEVIATION = 1 << COARSE_BITS
CENTRE = 4 * PER_DEVIATION  # coarse bins on either side of the middle that are symbols of their own


@dataclass(frozen=True)
class NormalGrid:
    """Places 2^-bits apart, up to `reach` standard deviations from 0. bits: at least COARSE_BITS. reach: at least 5."""

    bits: int
    reach: int

    @property
    def first(self) -> int:
        """The lowest index."""
        return -self._coarse_reach * self._num_inside

    @property
    def last(self) -> int:
        """The highest index."""
        return (self._coarse_reach + 1) * self._num_inside - 1

    def position(self, index: np.ndarray) -> np.ndarray:
        """The middle of each place, in standard deviations. Shapes: int64 (D,) -> float64 (D,)."""
        return (index + 0.5) * 2.0**-self.bits - HALF_COARSE

    def lower_edge(self, index: np.ndarray) -> np.ndarray:
        """Where each place begins. The first one begins at minus infinity, and behind the last one is the end."""
        edges = index * 2.0**-self.bits - HALF_COARSE
        return np.where(index <= self.first, -np.inf, np.where(index > self.last, np.inf, edges))

    def index_at(self, x: np.ndarray) -> np.ndarray:
        """The place that holds each x, up to rounding; the nearest one beyond the ends. Shapes: (D,) -> int64 (D,)."""
        return np.clip(np.floor((x + HALF_COARSE) * 2.0**self.bits), self.first, self.last).astype(np.int64)

    def places_below(self, x: np.ndarray) -> np.ndarray:
        """The index of the first place whose middle is at or above x. Shapes: (D,) -> int64 (D,).

        It never falls while x rises. first <= index <= last + 1.
        """
        index = np.ceil((x + HALF_COARSE) * 2.0**self.bits - 0.5)
        return np.clip(index, self.first, self.last + 1).astype(np.int64)

    def push(self, coder: Any, index: np.ndarray) -> None:
        """Encodes the places onto a stack. Shapes: int64 (D,)."""
        coarse = index // self._num_inside
        push_uniform(coder, index - coarse * self._num_inside, np.full(len(index), self._num_inside))
        beyond = np.abs(coarse) - CENTRE - 1
        for deviation in range(self.reach - 1, 3, -1):
            here = beyond[beyond >= (deviation - 4) * PER_DEVIATION] - (deviation - 4) * PER_DEVIATION
            coder.encode_reverse(np.minimum(here, PER_DEVIATION).astype(np.int32), tail(deviation, self.reach))
        centre = np.clip(coarse, -CENTRE - 1, CENTRE + 1) + CENTRE + 1
        coder.encode_reverse(centre.astype(np.int32), middle())

    def pop(self, coder: Any, count: int) -> np.ndarray:
        """Decodes `count` places from a stack. Shapes: -> int64 (count,)."""
        coarse = np.asarray(coder.decode(middle(), count), np.int64) - CENTRE - 1
        is_beyond = np.abs(coarse) > CENTRE
        for deviation in range(4, self.reach):
            more = np.asarray(coder.decode(tail(deviation, self.reach), int(is_beyond.sum())), np.int64)
            coarse[is_beyond] += np.sign(coarse[is_beyond]) * more
            is_beyond[is_beyond] = more == PER_DEVIATION
        return coarse * self._num_inside + pop_uniform(coder, np.full(count, self._num_inside))

    @property
    def _num_inside(self) -> int:
        return 1 << (self.bits - COARSE_BITS)

    @property
    def _coarse_reach(self) -> int:
        return self.reach * PER_DEVIATION


@lru_cache(maxsize=1)
def middle() -> Any:
    """The coarse bins within 4 deviations, and one symbol at either end for all beyond."""
    above = _mass_above(np.arange(-CENTRE, CENTRE + 2))
    return Categorical(-np.diff(np.concatenate([[1.0], above, [0.0]])), perfect=False)


@lru_cache(maxsize=256)
def tail(deviation: int, reach: int) -> Any:
    """Beyond `deviation`: the coarse bins of the next one and, but for the last, one symbol for all beyond."""
    above = _mass_above(CENTRE + 1 + (deviation - 4) * PER_DEVIATION + np.arange(PER_DEVIATION + 1))
    within = -np.diff(above)
    masses = within if deviation == reach - 1 else np.concatenate([within, above[-1:]])
    return Categorical(masses / masses.sum(), perfect=False)


def _mass_above(coarse: np.ndarray) -> np.ndarray:
    """Probability of all coarse bins from this one upwards."""
    return np.array([0.5 * math.erfc((index / PER_DEVIATION - HALF_COARSE) / math.sqrt(2)) for index in coarse])


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
