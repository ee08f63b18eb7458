from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from dgm.data.arrays import CifarArrays, DataError
from dgm.data.verify import check_arrays, check_file, sha256_of_array
from tests.data.fake_cifar import accept, fake_arrays


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


def test_altered_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "archive.tgz"
    path.write_bytes(b"contents")
    check_file(path, hashlib.sha256(b"contents").hexdigest())
    path.write_bytes(b"content")
    with pytest.raises(DataError, match=r"archive\.tgz: altered or truncated"):
        check_file(path, hashlib.sha256(b"contents").hexdigest())
