"""CIFAR-10 packed without loss for machines without network: one file a batch, in two parts of 50 MB at most.

A file is a row of WebP pictures, one after the other, each a square of images: WebP has few tables of code lengths a
picture, and each should serve few images (10,000 images in one picture take 3% more bytes, in squares of 5 by 5 more
too). Six files are quicker read than 60,000. `dgm.data.formats` reads them by what they hold.
"""

from __future__ import annotations

import io
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

MAX_PART_BYTES = 50_000_000
SIDE = 10  # images along a side of a picture
RIFF_HEADER_BYTES = 8  # "RIFF" and how many bytes follow: where the next picture begins
EFFORT = {"lossless": True, "quality": 75, "method": 4, "exact": True}  # quality 100 takes 3 times as long for 0.2%
PARTS: Mapping[str, tuple[str, ...]] = {
    "part_1": ("data_batch_1", "data_batch_2", "data_batch_3"),
    "part_2": ("data_batch_4", "data_batch_5", "test_batch"),
}


def pack_cifar(arrays: CifarArrays, folder: Path, announce: Callable[[str], None]) -> list[Path]:
    """Writes part_1/*.webp and part_2/*.webp; each file is read back and hashed first. About 80 s on one core.

    Raises: DataError if a file does not read back bit for bit, or a part is too large; OSError naming a file.
    """
    size = verify.IMAGES_PER_BATCH
    batches = [*(arrays.train[start : start + size] for start in range(0, len(arrays.train), size)), arrays.test]
    images = dict(zip(verify.BATCH_SHA256, batches, strict=True))
    written: list[Path] = []
    for part, names in PARTS.items():
        num_bytes = 0
        for name in names:
            path, data = folder / part / f"{name}.webp", encoded(images[name])
            if verify.batch_name(np.ascontiguousarray(of_pictures(data).transpose(0, 3, 1, 2))) != name:
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
    """Lossless WebP pictures of SIDE x SIDE images, one after the other. Shapes: uint8 (N, C, H, W), N a multiple."""
    channels, height, width = images.shape[1:]
    squares = images.reshape(-1, SIDE, SIDE, channels, height, width).transpose(0, 1, 4, 2, 5, 3)
    file = io.BytesIO()
    for pixels in squares.reshape(-1, SIDE * height, SIDE * width, channels):
        picture = io.BytesIO()  # Pillow writes at the start of a file
        Image.fromarray(np.ascontiguousarray(pixels)).save(picture, format="WEBP", **EFFORT)
        file.write(picture.getvalue())
    return file.getvalue()


def of_pictures(data: bytes) -> NDArray[Any]:
    """The images of a file that `encoded` made. Shapes: -> uint8 (N, H, W, C). Raises: ValueError, OSError."""
    found: list[NDArray[Any]] = []
    start = 0
    while start < len(data):
        size = RIFF_HEADER_BYTES + int.from_bytes(data[start + 4 : start + RIFF_HEADER_BYTES], "little")
        found.append(_of_picture(data[start : start + size]))
        start += size
        if sum(map(len, found)) > verify.IMAGES_PER_BATCH:
            raise ValueError(f"holds more than {verify.IMAGES_PER_BATCH} images")
    return np.concatenate(found)


def _of_picture(data: bytes) -> NDArray[Any]:
    with Image.open(io.BytesIO(data), formats=["WEBP"]) as picture:
        side, rest = divmod(picture.width, CIFAR10.width)
        if picture.mode != "RGB" or rest or picture.height != side * CIFAR10.height:
            raise ValueError(f"{picture.mode} {picture.size} is not an RGB square of images of CIFAR-10")
        pixels = np.asarray(picture)
    tiles = pixels.reshape(side, CIFAR10.height, side, CIFAR10.width, CIFAR10.channels).swapaxes(1, 2)
    return tiles.reshape(-1, CIFAR10.height, CIFAR10.width, CIFAR10.channels)
