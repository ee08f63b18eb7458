"""Batches of CIFAR-10, collected from any files: known by what they hold, not by what they are called."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgm.data import verify
from dgm.data.arrays import CifarArrays, DataError, check_arrays
from dgm.types import CIFAR10

MAX_REASONS = 8
MAX_REASON_CHARACTERS = 240


class Collection:
    """The official batches found so far, and why other files were refused."""

    def __init__(self) -> None:
        self._batches: dict[str, NDArray[np.uint8]] = {}
        self._refused: dict[str, str] = {}

    def is_complete(self) -> bool:
        return len(self._batches) == len(verify.BATCH_SHA256)

    def add(self, source: str, array: NDArray[Any]) -> None:
        """Takes the batches among the images of `array`, and notes why the others are refused.

        Shapes: (N, 3, 32, 32), (N, 32, 32, 3) or (N, 3072), uint8, N a multiple of a batch's images.
        """
        readings = _as_images(array)
        if array.dtype != np.uint8 or not readings:
            self.refuse(source, f"an array of {array.dtype} {array.shape} is not images of CIFAR-10")
            return
        size = verify.IMAGES_PER_BATCH
        if not len(array) or len(array) % size:
            self.refuse(source, f"{len(array)} images are not whole batches of {size}")
            return
        unknown: list[int] = []
        for start in range(0, len(array), size):
            blocks = (np.ascontiguousarray(images[start : start + size]) for images in readings)
            named = next(((name, block) for block in blocks if (name := verify.batch_name(block))), None)
            if named is None:
                unknown.append(start)
            else:
                self._batches.setdefault(*named)
        if unknown:
            which = ", ".join(f"{start} to {start + size - 1}" for start in unknown)
            self.refuse(source, f"not CIFAR-10, or altered: images {which} have the SHA-256 of none of its batches")

    def refuse(self, source: str, reason: str) -> None:
        """Notes why a file is of no use."""
        self._refused[source] = reason

    def arrays(self, source: str) -> CifarArrays:
        """CIFAR-10 in the official order. Raises: DataError with what is missing and why files were refused."""
        missing = [name for name in verify.BATCH_SHA256 if name not in self._batches]
        if missing:
            raise DataError(f"{source}: {self._shortage(missing)}")
        *train, test = (self._batches[name] for name in verify.BATCH_SHA256)
        arrays = CifarArrays(train=np.concatenate(train), test=test)
        check_arrays(arrays, source)
        return arrays

    def _shortage(self, missing: list[str]) -> str:
        reasons = [f"{source}: {_clipped(reason)}" for source, reason in list(self._refused.items())[:MAX_REASONS]]
        if len(self._refused) > MAX_REASONS:
            reasons.append(f"and {len(self._refused) - MAX_REASONS} more files")
        refused = f"; refused: {'; '.join(reasons)}" if reasons else ""
        if not self._batches:
            return f"no CIFAR-10 in it{refused or ': nothing that looks like it'}"
        return f"incomplete: {', '.join(missing)} not found{refused}"


def _as_images(array: NDArray[Any]) -> list[NDArray[Any]]:
    """Every way to read the array as images (N, 3, 32, 32); views."""
    channels, height, width = CIFAR10.shape
    shape = array.shape[1:]
    if shape == (channels, height, width):
        return [array]
    if shape == (height, width, channels):
        return [array.transpose(0, 3, 1, 2)]
    if shape == (CIFAR10.num_subpixels,):
        by_pixel = array.reshape(-1, height, width, channels)
        return [array.reshape(-1, channels, height, width), by_pixel.transpose(0, 3, 1, 2)]
    return []


def _clipped(reason: str) -> str:
    """On one line, of a length that can be read."""
    text = " ".join(reason.split())
    return text if len(text) <= MAX_REASON_CHARACTERS else f"{text[: MAX_REASON_CHARACTERS - 3]}..."
