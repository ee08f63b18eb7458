"""Which images a training step sees: a function of (seed, step), so that a resumed run sees what it would have seen."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from dgm.seeds import Stream, derived_seed


def batch_indices(seed: int, step: int, num_images: int, batch_size: int) -> np.ndarray:
    """Positions of the images of step `step` (from 0), int64 (batch_size,).

    Steps walk through one fresh order of all images an epoch. A batch may straddle the border of two epochs, so that
    every image is seen exactly once an epoch and none is dropped.
    Raises: ValueError if there are no images, the batch is empty or the step is negative.
    """
    if num_images < 1 or batch_size < 1 or step < 0:
        raise ValueError(f"no batch of {batch_size} of {num_images} images at step {step}")
    epochs, offsets = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), num_images)
    parts = [_order(seed, int(epoch), num_images)[offsets[epochs == epoch]] for epoch in np.unique(epochs)]
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    order = np.random.default_rng(derived_seed(seed, Stream.ORDER, epoch)).permutation(num_images)
    order.setflags(write=False)
    return order
