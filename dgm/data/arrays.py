"""The canonical arrays: CIFAR-10 as uint8 (N, C, H, W), in the official order, in two .npy files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dgm.errors import StageError
from dgm.runs.atomic import write_array
from dgm.types import CIFAR10

NUM_TRAIN_IMAGES = 50000
NUM_TEST_IMAGES = 10000


class DataError(StageError):
    """One line that names the file or source, what is wrong with it and the remedy."""


@dataclass(frozen=True)
class CifarArrays:
    """Both parts of CIFAR-10, uint8. Shapes: train (50000, 3, 32, 32), test (10000, 3, 32, 32)."""

    train: np.ndarray
    test: np.ndarray


def load_arrays(folder: Path) -> CifarArrays:
    """Both arrays, memory-mapped and read-only. Raises: DataError naming the file and the remedy."""
    return CifarArrays(
        train=_load(folder / "train.npy", NUM_TRAIN_IMAGES), test=_load(folder / "test.npy", NUM_TEST_IMAGES)
    )


def save_arrays(folder: Path, arrays: CifarArrays) -> None:
    """Writes train.npy and test.npy, both or neither. Raises: OSError naming the path."""
    write_array(folder / "train.npy", arrays.train)
    try:
        write_array(folder / "test.npy", arrays.test)
    except BaseException:
        (folder / "train.npy").unlink()
        raise


def _load(path: Path, num_images: int) -> np.ndarray:
    remedy = "run `dvc repro download`"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {remedy}") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it and {remedy}") from None
    expected = (num_images, *CIFAR10.shape)
    if array.shape != expected or array.dtype != np.uint8:
        found = f"{array.dtype} {array.shape}"
        raise DataError(f"{path}: holds {found} instead of uint8 {expected}; delete it and {remedy}")
    return array
