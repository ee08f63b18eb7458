"""CIFAR-10 packed without loss for machines without network: one WebP picture a batch, in two parts of 50 MiB at most.

A batch is a square of 100 by 100 images, row by row: WebP's predictors do as well on it as on one image after the
other, and six files are quicker read than 60,000. `dgm.data.formats` reads them by what they hold.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dgm.data import verify
from dgm.data.arrays import CifarArrays, DataError
from dgm.runs.atomic import atomic_file
from dgm.types import CIFAR10

MAX_PART_BYTES = 50 * 2**20
EFFORT = {"lossless": True, "quality": 75, "method": 4, "exact": True}  # quality 100 takes 3 times as long for 0.2%
PARTS: Mapping[str, tuple[str, ...]] = {
    "part_1": ("data_batch_1", "data_batch_2", "data_batch_3"),
    "part_2": ("data_batch_4", "data_batch_5", "test_batch"),
}


def pack_cifar(arrays: CifarArrays, folder: Path, announce: Callable[[str], None]) -> list[Path]:
    """Writes part_1/*.webp and part_2/*.webp; each picture is read back and hashed first. About 80 s on one core.

    Raises: DataError if a picture does not read back bit for bit, or a part is too large; OSError naming a file.
    """
    size = verify.IMAGES_PER_BATCH
    batches = [*(arrays.train[start : start + size] for start in range(0, len(arrays.train), size)), arrays.test]
    images = dict(zip(verify.BATCH_SHA256, batches, strict=True))
    written: list[Path] = []
    for part, names in PARTS.items():
        num_bytes = 0
        for name in names:
            path, data = folder / part / f"{name}.webp", encoded(images[name])
            if verify.batch_name(np.ascontiguousarray(of_picture(data).transpose(0, 3, 1, 2))) != name:
                raise DataError(f"{path}: the packed images are not {name} of CIFAR-10; nothing was written")
            num_bytes += len(data)
            if num_bytes > MAX_PART_BYTES:
                raise DataError(f"{folder / part}: would have more than {MAX_PART_BYTES} bytes")
            with atomic_file(path) as file:
                file.write(data)
            announce(f"{path}: {len(data) / 1e6:.1f} MB, verified")
            written.append(path)
    return written


def encoded(images: NDArray[np.uint8]) -> bytes:
    """A lossless WebP picture of a square number of images. Shapes: uint8 (N, C, H, W)."""
    side = math.isqrt(len(images))
    channels, height, width = images.shape[1:]
    rows = images.reshape(side, side, channels, height, width).transpose(0, 3, 1, 4, 2)
    file = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(rows.reshape(side * height, side * width, channels)))
    picture.save(file, format="WEBP", **EFFORT)
    return file.getvalue()


def of_picture(data: bytes) -> NDArray[Any]:
    """The images of a picture that `encoded` made. Shapes: -> uint8 (N, H, W, C). Raises: ValueError, OSError."""
    with Image.open(io.BytesIO(data), formats=["WEBP"]) as picture:
        side, rest = divmod(picture.width, CIFAR10.width)
        if picture.mode != "RGB" or rest or picture.height != side * CIFAR10.height:
            raise ValueError(f"{picture.mode} {picture.size} is not an RGB square of images of CIFAR-10")
        pixels = np.asarray(picture)
    tiles = pixels.reshape(side, CIFAR10.height, side, CIFAR10.width, CIFAR10.channels).swapaxes(1, 2)
    return tiles.reshape(-1, CIFAR10.height, CIFAR10.width, CIFAR10.channels)
