"""Samples and completions of one model as one picture."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
from PIL import Image

from dgm.runs.atomic import atomic_file
from dgm.types import CIFAR10

SCALE = 3  # screen pixels per image pixel
GAP = 2  # image pixels between tiles
BELOW = 4 * GAP  # between the samples and what stands below them


def tile(images: np.ndarray, num_columns: int) -> np.ndarray:
    """Images in rows on white. Shapes: uint8 (N, C, H, W) -> uint8 (height, width, 3)."""
    count, _, height, width = images.shape
    num_rows = math.ceil(count / num_columns)
    canvas = np.full((num_rows * (height + GAP) + GAP, num_columns * (width + GAP) + GAP, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top = GAP + (index // num_columns) * (height + GAP)
        left = GAP + (index % num_columns) * (width + GAP)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return canvas


def untiled(picture: np.ndarray) -> np.ndarray:
    """The sampled images of a picture that `save_picture` wrote, without originals and completions.

    Shapes: uint8 (height, width, 3) at the screen's scale -> uint8 (N, 32, 32, 3). Raises: ValueError if it is none.
    """
    small = picture[::SCALE, ::SCALE]
    step = CIFAR10.height + GAP
    height = len(small) if (len(small) - GAP) % step == 0 else len(small) - BELOW - (2 * step + GAP)
    if height < step or (height - GAP) % step or (small.shape[1] - GAP) % step:
        raise ValueError(f"no picture of samples: {picture.shape[1]} x {picture.shape[0]} pixels")
    places = itertools.product(range(GAP, height, step), range(GAP, small.shape[1], step))
    tiles = [small[top : top + step - GAP, left : left + step - GAP] for top, left in places]
    return np.stack([image for image in tiles if not (image == 255).all()])  # the last row may have white places


def has_completions(picture: np.ndarray) -> bool:
    """Whether originals and completions stand below the samples."""
    return (len(picture) // SCALE - GAP) % (CIFAR10.height + GAP) != 0


def save_picture(path: Path, samples: np.ndarray, originals: np.ndarray, completions: np.ndarray) -> None:
    """A PNG: the samples; below a wider gap, if there are any, each original above its completion.

    Shapes: uint8 (N, C, H, W) each; originals and completions alike, possibly N = 0.
    """
    num_columns = max(8, len(originals))
    parts = [tile(samples, num_columns)]
    if len(originals):
        padded = np.full((2 * num_columns, *originals.shape[1:]), 255, dtype=np.uint8)
        padded[: len(originals)], padded[num_columns : num_columns + len(originals)] = originals, completions
        parts += [np.full((BELOW, parts[0].shape[1], 3), 255, dtype=np.uint8), tile(padded, num_columns)]
    picture = Image.fromarray(np.concatenate(parts))
    picture = picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST)
    with atomic_file(path) as file:
        picture.save(file, format="PNG", optimize=True)
