"""Which images are trained on, watched and scored. Fixed: no seed of params.yaml enters here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dgm.data.arrays import CifarArrays
from dgm.types import NUM_TEST_IMAGES, NUM_TRAIN_IMAGES

NUM_VALIDATION_IMAGES = 5000
NUM_SAMPLED_IMAGES = 10000
_SAMPLE_SEED = 10


@dataclass(frozen=True)
class Splits:
    """uint8 (N, 3, 32, 32) each.

    train: the first 45,000 or all 50,000 training images.
    validation: always the last 5,000 training images; with 50,000 they are trained on too, and then tell nothing
        about unseen images.
    test: all 10,000 test images, in order.
    train_sample: 10,000 of the first 45,000 training images, the same for every run: stands for the training set
        where all of it would take too long to score.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    train_sample: np.ndarray


def train_sample_indices() -> np.ndarray:
    """Sorted positions of `train_sample` in the training set, int64 (10000,), all different and below 45,000."""
    candidates = NUM_TRAIN_IMAGES - NUM_VALIDATION_IMAGES
    drawn = np.random.default_rng(_SAMPLE_SEED).choice(candidates, NUM_SAMPLED_IMAGES, replace=False)
    return np.sort(drawn)


def make_splits(arrays: CifarArrays, num_training_images: Literal[45000, 50000]) -> Splits:
    """The four splits; views of the arrays except for `train_sample`. Raises: ValueError for other sizes."""
    if num_training_images not in (NUM_TRAIN_IMAGES - NUM_VALIDATION_IMAGES, NUM_TRAIN_IMAGES):
        raise ValueError(f"num_training_images: must be 45000 or 50000, got {num_training_images}")
    if len(arrays.train) != NUM_TRAIN_IMAGES or len(arrays.test) != NUM_TEST_IMAGES:
        raise ValueError(f"{len(arrays.train)} training and {len(arrays.test)} test images are not all of CIFAR-10")
    return Splits(
        train=arrays.train[:num_training_images],
        validation=arrays.train[-NUM_VALIDATION_IMAGES:],
        test=arrays.test,
        train_sample=np.array(arrays.train[train_sample_indices()]),
    )
