"""The canonical arrays: CIFAR-10 as uint8 (N, C, H, W), in the official order, in two .npy files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dgm.data import verify
from dgm.errors import StageError
from dgm.runs.atomic import write_array
from dgm.runs.locks import FileLock, LockHeldError
from dgm.runs.room import check_room
from dgm.runs.system_errors import unreadable
from dgm.types import CIFAR10, NUM_TEST_IMAGES, NUM_TRAIN_IMAGES

WRITING_SECONDS = 600.0  # for another process that writes them; a slow disk takes seconds
_FILES = ("train.npy", "test.npy")
_REMEDY = "run `dvc repro download`"


class DataError(StageError):
    """One line that names the file or source, what is wrong with it and the remedy."""


@dataclass(frozen=True)
class CifarArrays:
    """Both parts of CIFAR-10, uint8. Shapes: train (50000, 3, 32, 32), test (10000, 3, 32, 32)."""

    train: NDArray[np.uint8]
    test: NDArray[np.uint8]


def load_arrays(folder: Path) -> CifarArrays:
    """Both arrays, memory-mapped, read-only and verified by their SHA-256 (0.4 s for all of CIFAR-10).

    Raises: DataError naming the file and the remedy if one is missing, damaged or differs from CIFAR-10 in any bit.
    """
    arrays = CifarArrays(
        train=_load(folder / "train.npy", NUM_TRAIN_IMAGES), test=_load(folder / "test.npy", NUM_TEST_IMAGES)
    )
    for name, array, expected in zip(
        _FILES, (arrays.train, arrays.test), (verify.TRAIN_SHA256, verify.TEST_SHA256), strict=True
    ):
        found = verify.sha256_of_array(array)
        if found != expected:
            reason = f"altered: its images have SHA-256 {found} instead of {expected}"
            raise DataError(f"{folder / name}: {reason}; delete it and {_REMEDY}")
    return arrays


def check_arrays(arrays: CifarArrays, source: str) -> None:
    """Raises: DataError naming the source if the arrays are not CIFAR-10."""
    parts = (("training", arrays.train, verify.TRAIN_SHA256), ("test", arrays.test, verify.TEST_SHA256))
    for name, array, expected in parts:
        found = verify.sha256_of_array(array)
        if found != expected:
            reason = f"its {len(array)} {name} images have SHA-256 {found} instead of {expected}"
            raise DataError(f"{source}: not CIFAR-10: {reason}; nothing was written")


def save_arrays(folder: Path, arrays: CifarArrays, scratch: Path) -> None:
    """Writes train.npy and test.npy, both or neither.

    Until both are whole they are in `scratch`, so that a killed run leaves nothing in `folder`; what an earlier
    killed run left in `scratch` is removed. Two runs at once write one after the other.
    Raises: OSError naming the path; StageError if there is no room.
    """
    with _one_writer(scratch):
        folder.mkdir(parents=True, exist_ok=True)
        check_room({folder: arrays.train.nbytes + arrays.test.nbytes})
        unfinished = _unfinished(folder, scratch)
        for leftover in unfinished:
            shutil.rmtree(leftover, ignore_errors=True)
        is_same_disk = folder.stat().st_dev == scratch.stat().st_dev  # a file moves whole only within one disk
        incoming = unfinished[0 if is_same_disk else 1]
        try:
            write_array(incoming / "train.npy", arrays.train)
            write_array(incoming / "test.npy", arrays.test)
            for name in _FILES:
                (folder / name).unlink(missing_ok=True)  # no moment with a new file beside an old one
            for name in _FILES:
                os.replace(incoming / name, folder / name)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)


def remove_leftovers(folder: Path, scratch: Path) -> None:
    """Deletes the temporary files (up to 180 MB) that a killed download left in `folder` or in `scratch`."""
    temporary = [path for name in _FILES for path in folder.glob(f".{name}.*")]
    unfinished = [path for path in _unfinished(folder, scratch) if path.is_dir()]
    if not temporary and not unfinished:
        return
    with _one_writer(scratch):
        for path in temporary:
            path.unlink(missing_ok=True)
        for path in unfinished:
            shutil.rmtree(path, ignore_errors=True)


def _unfinished(folder: Path, scratch: Path) -> tuple[Path, Path]:
    """Where the files of a download are before they are whole: on the disk of `scratch`, or on that of `folder`."""
    return scratch / "download", folder / ".download"


@contextmanager
def _one_writer(scratch: Path) -> Generator[None]:
    """Waits until no other process writes; the system takes the lock from a process that ends, however it ends.

    Raises: DataError if that takes too long.
    """
    lock = FileLock(scratch / "download.lock")
    try:
        lock.acquire(WRITING_SECONDS)
    except LockHeldError as error:
        raise DataError(
            f"{error.path}: process {error.holder} has been writing CIFAR-10 for {WRITING_SECONDS / 60:.0f} minutes; "
            "stop it, then run `dvc repro download` again"
        ) from None
    try:
        yield
    finally:
        lock.release(remove=False)


def _load(path: Path, num_images: int) -> NDArray[np.uint8]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {_REMEDY}") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: {unreadable(error, _REMEDY, damaged='cannot be read')}") from None
    expected = (num_images, *CIFAR10.shape)
    if array.shape != expected or array.dtype != np.uint8:
        found = f"{array.dtype} {array.shape}"
        raise DataError(f"{path}: holds {found} instead of uint8 {expected}; delete it and {_REMEDY}")
    return array
