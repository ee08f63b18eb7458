"""The only source of randomness: a generator that is a function of a seed and a position, never of history."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


def derived_seed(seed: int, *position: int) -> int:
    """A 63-bit seed mixed from every argument by numpy's SeedSequence; trailing zeros do not count there."""
    return int(np.random.SeedSequence([seed, *position]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator_for(seed: int, *position: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one position, e.g. (step,) in training or (draw, first image) in evaluation."""
    return torch.Generator(device).manual_seed(derived_seed(seed, *position))


def number_below(count: int, generator: torch.Generator) -> int:
    """A number from 0 to count - 1 that the host knows at once: one that a GPU draws, it would wait for."""
    host = generator if generator.device.type == "cpu" else torch.Generator().manual_seed(generator.initial_seed())
    return int(torch.randint(count, (), generator=host))


class Stream(IntEnum):
    """First position of every derived seed: uses that must not share their noise."""

    CONSTRUCTION = 0
    PREPARATION = 1
    STEP = 2
    VALIDATION = 3
    EVALUATION = 4
    SAMPLING = 5
    ORDER = 6
    GLOBAL = 7


def seed_global(seed: int, *position: int) -> None:
    """Makes torch's global generator (parameter initialisation, nn.Dropout) a function of seed and position too."""
    torch.manual_seed(derived_seed(seed, *position))
