"""Is this CIFAR-10, bit for bit? Whatever the source, only the canonical images pass.

All hashes are SHA-256 of uint8 images (N, 3, 32, 32) in C order, in the order of the official batches.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

TRAIN_SHA256 = "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111"
TEST_SHA256 = "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56"

IMAGES_PER_BATCH = 10000
BATCH_SHA256 = {
    "data_batch_1": "a50e8b48728e1667d682a807155c375279d5ae321fb12242c02e3104a6bc8b21",
    "data_batch_2": "0b825e5592c3b72ea18d6ec2ff5f5b19d33e41a75f5039054a9bb87be3cf69a0",
    "data_batch_3": "c6ee1dd4601a69ec085d8ebf53ee6441775491a6839a0a9ae8fa198e88a3a429",
    "data_batch_4": "1f6b6c799cff375a9f8fae2fac909d51ee09f38a6a60eebb9e8fec6f47ddc48f",
    "data_batch_5": "58e3bbf713e28357476a351d3a05d056372f94c681d04ca9d62a076fdf2a643b",
    "test_batch": TEST_SHA256,
}


def sha256_of_array(array: NDArray[np.uint8]) -> str:
    """Hexadecimal SHA-256 of the array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def batch_name(images: NDArray[np.uint8]) -> str | None:
    """The official batch that these images are, bit for bit; None if they are none. Shapes: (N, 3, 32, 32)."""
    found = sha256_of_array(images)
    return next((name for name, sha256 in BATCH_SHA256.items() if sha256 == found), None)
