from __future__ import annotations

import numpy as np
import pytest

from dgm.data import batches
from dgm.data.batches import batch_indices


@pytest.mark.parametrize(("num_images", "batch_size"), [(12, 4), (10, 4), (7, 3), (5, 5), (3, 8), (1, 2)])
def test_every_image_exactly_once_an_epoch(num_images: int, batch_size: int) -> None:
    num_epochs = batch_size * 3
    steps = range(num_epochs * num_images // batch_size)
    seen = np.concatenate([batch_indices(1, step, num_images, batch_size) for step in steps])
    epochs = seen.reshape(num_epochs, num_images)
    assert (np.sort(epochs, axis=1) == np.arange(num_images)).all()


def test_a_batch_is_a_function_of_seed_and_step_only() -> None:
    forwards = [batch_indices(3, step, 100, 32) for step in range(20)]
    batches._order.cache_clear()
    backwards = [batch_indices(3, step, 100, 32) for step in reversed(range(20))]
    for first, second in zip(forwards, reversed(backwards), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_caller_that_changes_its_batch_changes_no_other() -> None:
    before = batch_indices(3, 0, 8, 8).copy()
    batch_indices(3, 0, 8, 8)[:] = 0
    np.testing.assert_array_equal(batch_indices(3, 0, 8, 8), before)


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    first, of_next_epoch = (batch_indices(1, step, 1000, 1000) for step in (0, 1))
    of_other_seed = batch_indices(2, 0, 1000, 1000)
    for other in (of_next_epoch, of_other_seed, np.arange(1000)):
        assert (first == other).mean() < 0.05


def test_batches_do_not_change_between_versions() -> None:
    assert batch_indices(1, 0, 50000, 4).tolist() == FIRST_BATCH
    assert batch_indices(1, 0, 50000, 4).dtype == np.int64 and batch_indices(1, 7, 50, 16).shape == (16,)


@pytest.mark.parametrize(("step", "num_images", "batch_size"), [(-1, 5, 2), (0, 0, 2), (0, 5, 0)])
def test_an_impossible_batch_is_refused(step: int, num_images: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"no batch of {batch_size} of {num_images} images at step {step}"):
        batch_indices(1, step, num_images, batch_size)


FIRST_BATCH = [8978, 44689, 39402, 9528]
