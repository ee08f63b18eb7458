"""Is this CIFAR-10, bit for bit? Whatever the source, only the canonical arrays pass."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from dgm.data.arrays import CifarArrays, DataError

# SHA-256 of the raw bytes in C order: uint8 (N, 3, 32, 32), images in the order of the official batches.
TRAIN_SHA256 = "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111"
TEST_SHA256 = "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56"


def sha256_of_array(array: np.ndarray) -> str:
    """Hexadecimal SHA-256 of the array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def check_file(path: Path, sha256: str) -> None:
    """Raises: DataError if the file's bytes are not the expected ones."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DataError(f"{path.name}: altered or truncated (SHA-256 {found} instead of {sha256}); download it again")


def check_arrays(arrays: CifarArrays, source: str) -> None:
    """Raises: DataError naming the source if the arrays are not CIFAR-10."""
    for name, array, sha256 in (("training", arrays.train, TRAIN_SHA256), ("test", arrays.test, TEST_SHA256)):
        found = sha256_of_array(array)
        if found != sha256:
            raise DataError(
                f"{source}: not CIFAR-10: its {len(array)} {name} images have SHA-256 {found} instead of {sha256};"
                " nothing was written"
            )
