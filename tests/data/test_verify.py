from __future__ import annotations

import hashlib

import numpy as np
import pytest

from dgm.data.arrays import CifarArrays, DataError, check_arrays
from dgm.data.verify import BATCH_SHA256, batch_name, sha256_of_array
from tests.data.fake_cifar import accept, batches, fake_arrays


def test_hash_is_of_the_bytes_in_c_order() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert sha256_of_array(array) == hashlib.sha256(bytes(range(6))).hexdigest()
    assert sha256_of_array(array.T) == hashlib.sha256(bytes([0, 3, 1, 4, 2, 5])).hexdigest()


@pytest.mark.parametrize("part", ["train", "test"])
def test_one_changed_sub_pixel_is_not_cifar10(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = fake_arrays()
    accept(monkeypatch, arrays)
    check_arrays(arrays, "here")
    changed = {"train": arrays.train.copy(), "test": arrays.test.copy()}
    changed[part][-1, -1, -1, -1] ^= 1
    with pytest.raises(DataError, match=f"here: not CIFAR-10: its .* {part}"):
        check_arrays(CifarArrays(**changed), "here")


def test_other_arrays_are_not_cifar10() -> None:
    with pytest.raises(DataError, match="not CIFAR-10: its 20 training images"):
        check_arrays(fake_arrays(), "here")


def test_each_batch_is_known_by_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = fake_arrays()
    assert all(batch_name(images) is None for images in batches(arrays).values())
    accept(monkeypatch, arrays)
    assert all(batch_name(images) == name for name, images in batches(arrays).items())
    assert batch_name(arrays.test[::-1]) is None


def test_the_batches_are_in_the_official_order() -> None:
    assert list(BATCH_SHA256) == [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
