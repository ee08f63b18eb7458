from __future__ import annotations

import numpy as np
import pytest

from dgm.data.arrays import CifarArrays
from dgm.data.splits import make_splits, train_sample_indices
from tests.data.fake_cifar import fake_arrays


@pytest.fixture(scope="module")
def numbered() -> CifarArrays:
    """All of CIFAR-10's images, one pixel each, that hold their own position."""
    train, test = (np.arange(count).reshape(-1, 1, 1, 1) for count in (50000, 10000))
    return CifarArrays(train=train, test=test)  # pyright: ignore[reportArgumentType]  # positions exceed a uint8


@pytest.mark.parametrize("num_training_images", [45000, 50000])
def test_splits_hold_the_images_they_should(num_training_images: int, numbered: CifarArrays) -> None:
    splits = make_splits(numbered, num_training_images)  # type: ignore[arg-type]
    np.testing.assert_array_equal(splits.train.ravel(), np.arange(num_training_images))
    np.testing.assert_array_equal(splits.validation.ravel(), np.arange(45000, 50000))
    np.testing.assert_array_equal(splits.test.ravel(), np.arange(10000))
    np.testing.assert_array_equal(splits.train_sample.ravel(), train_sample_indices())


def test_train_sample_is_fixed_sorted_and_never_held_out() -> None:
    indices = train_sample_indices()
    assert indices.shape == (10000,) and indices.dtype == np.int64
    assert (np.diff(indices) > 0).all() and indices[0] >= 0 and indices[-1] < 45000
    assert indices[:5].tolist() == FIRST_OF_TRAIN_SAMPLE


def test_other_sizes_are_refused(numbered: CifarArrays) -> None:
    with pytest.raises(ValueError, match="must be 45000 or 50000, got 40000"):
        make_splits(numbered, 40000)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="20 training and 4 test images are not all of CIFAR-10"):
        make_splits(fake_arrays(), 45000)


# Results of different versions of this code are only comparable while these stay as they are.
FIRST_OF_TRAIN_SAMPLE = [4, 5, 6, 8, 10]
