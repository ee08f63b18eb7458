"""Random images of CIFAR-10's shape in its place, so that a campaign needs no network and is a function of its seed.

`python -m tests.faults.images stages.train --model made --profile smoke` runs a stage that takes them for CIFAR-10.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dgm.fingerprints
from dgm.data import verify
from dgm.runs.files import RunFiles
from dgm.types import NUM_TEST_IMAGES, NUM_TRAIN_IMAGES

SEED = 18
_known: dict[tuple[int, int, int], str] = {}  # SHA-256 of a file's images, by inode, size and time


@lru_cache(maxsize=1)
def hashes() -> dict[str, str]:
    """SHA-256 by part: train, test and the official batches."""
    train, test = images("train"), images("test")
    size = verify.IMAGES_PER_BATCH
    batches = {f"data_batch_{n + 1}": verify.sha256_of_array(train[n * size : (n + 1) * size]) for n in range(5)}
    sha256 = verify.sha256_of_array(test)
    return {"train": verify.sha256_of_array(train), "test": sha256, **batches, "test_batch": sha256}


def images(part: str) -> NDArray[np.uint8]:
    """All training or test images: smooth fields with noise, so that models differ on them. uint8 (N, 3, 32, 32)."""
    count, number = {"train": (NUM_TRAIN_IMAGES, 0), "test": (NUM_TEST_IMAGES, 1)}[part]
    random = np.random.default_rng([SEED, number])
    coarse = np.repeat(np.repeat(random.integers(0, 224, (count, 3, 4, 4), dtype=np.uint8), 8, axis=2), 8, axis=3)
    coarse += np.resize(random.integers(0, 32, (2000, 3, 32, 32), dtype=np.uint8), coarse.shape)
    return coarse


def write_images(folder: Path) -> None:
    """train.npy and test.npy."""
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        np.save(folder / f"{part}.npy", images(part))


def accept_images() -> None:
    """From now on the verification of this process takes the images for CIFAR-10, and hashes no file twice."""
    found = hashes()
    verify.TRAIN_SHA256, verify.TEST_SHA256 = found["train"], found["test"]
    verify.BATCH_SHA256.update({name: found[name] for name in verify.BATCH_SHA256})
    verify.sha256_of_array = _remembering(verify.sha256_of_array)


def write_here() -> None:
    """From now on `check` writes the fingerprints of this code into the current folder, not beside the code."""

    def files_here(profile: str, model: str, root: Path) -> RunFiles:
        return RunFiles(profile, model)

    dgm.fingerprints.RunFiles = files_here  # type: ignore[misc,assignment]


def know(folder: Path) -> None:
    """Remembers the hashes of the files in `folder`, for this process and its forks: 0.4 s each time otherwise."""
    accept_images()
    for path in folder.glob("*.npy"):
        verify.sha256_of_array(np.load(path, mmap_mode="r"))


def _remembering(digest: Callable[[NDArray[Any]], str]) -> Callable[[NDArray[Any]], str]:
    if digest.__name__ == "remembered":
        return digest

    def remembered(array: NDArray[Any]) -> str:
        if not isinstance(array, np.memmap) or array.filename is None:
            return digest(array)
        status = Path(array.filename).stat()
        place = (status.st_ino, status.st_size, status.st_mtime_ns)
        if place not in _known:
            _known[place] = digest(array)
        return _known[place]

    return remembered


def main() -> None:
    accept_images()
    write_here()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
