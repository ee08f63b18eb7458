"""Parts of images for training, and which of their pixels have the features that they have in the whole image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Crops:
    """One part of each image. Shapes: rows (N, h) and columns (N, w), where it lies; is_scored (N, h, w), 0 or 1."""

    rows: Tensor
    columns: Tensor
    is_scored: Tensor


def random_crops(num: int, image_size: tuple[int, int], side: int, margin: int, generator: torch.Generator) -> Crops:
    """Parts of `side` pixels in both directions, less where the image is smaller.

    margin: rows above and columns to either side, within the image, that a pixel's features need.
    """
    height, width = image_size
    rows, columns = (_random_run(num, size, min(side, size), generator) for size in (height, width))
    is_low = (rows - rows[:, :1] >= margin) | (rows[:, :1] == 0)
    is_far_left = (columns - columns[:, :1] >= margin) | (columns[:, :1] == 0)
    is_far_right = (columns[:, -1:] - columns >= margin) | (columns[:, -1:] == width - 1)
    is_scored = is_low.unsqueeze(2) & (is_far_left & is_far_right).unsqueeze(1)
    return Crops(rows, columns, is_scored)


def _random_run(num: int, size: int, length: int, generator: torch.Generator) -> Tensor:
    """Successive positions; runs that would begin up to half their length too early or late begin at the border
    instead, so that no position is rare. Shapes: -> int64 (num, length)."""
    spare = length // 2 if length < size else 0
    first = torch.randint(-spare, size - length + spare + 1, (num, 1), generator=generator, device=generator.device)
    return first.clamp(0, size - length) + torch.arange(length, device=generator.device)
