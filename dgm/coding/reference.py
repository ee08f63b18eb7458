"""Lossless codecs that know nothing of CIFAR-10, on the same test images: what a model's figure has to be held against.

Each image is a file of its own, and all images together are one picture: files of 32 x 32 pixels are mostly headers
and half-learned statistics, which the one picture pays for once. A size is that of the whole file, headers included.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import imagecodecs
import numpy as np
from PIL import Image, features

from dgm.errors import StageError
from dgm.runs.records import ReferenceCodec

Picture = np.ndarray  # uint8 (height, width, 3)
Encoded = bytes | bytearray


@dataclass(frozen=True)
class Codec:
    """One row of the table. decode(encode(picture), picture's shape) is the picture."""

    name: str
    settings: str
    package: str
    library: str
    encode: Callable[[Picture], Encoded]
    decode: Callable[[Encoded, tuple[int, ...]], Picture]


def codecs() -> list[Codec]:
    """Every codec, from the simplest to the strongest, at efforts that 10,000 images take within a minute in all."""
    return [
        Codec(
            "bzip2",
            "level 9, planes R, G, B, no header of sizes",
            _imagecodecs(),
            imagecodecs.bz2_version(),
            _bzip2,
            _read_bzip2,
        ),
        _image("QOI", "", imagecodecs.qoi_version(), imagecodecs.qoi_encode, imagecodecs.qoi_decode),
        Codec("PNG", "optimize", f"Pillow {version('pillow')}", f"zlib {features.version('zlib')}", _png, _read_png),
        _image("JPEG-LS", "", imagecodecs.jpegls_version(), _jpegls, imagecodecs.jpegls_decode),
        _image(
            "JPEG 2000",
            "reversible, colour transform, bare codestream",
            imagecodecs.jpeg2k_version(),
            lambda picture: imagecodecs.jpeg2k_encode(picture, reversible=True, mct=True, codecformat="j2k"),
            imagecodecs.jpeg2k_decode,
        ),
        _image(
            "WebP",
            "lossless, quality 0, method 4",
            imagecodecs.webp_version(),
            lambda picture: imagecodecs.webp_encode(picture, lossless=True, level=0, method=4),
            imagecodecs.webp_decode,
        ),
        _image(
            "JPEG XL",
            "lossless, effort 5, bare codestream",
            imagecodecs.jpegxl_version(),
            lambda picture: imagecodecs.jpegxl_encode(
                picture, lossless=True, effort=5, usecontainer=False, numthreads=1
            ),
            imagecodecs.jpegxl_decode,
        ),
    ]


def measure(codec: Codec, images: np.ndarray) -> ReferenceCodec:
    """What the codec writes for each image by itself and for all as one picture; every file is read again.

    Shapes: images uint8 (N, 3, H, W), N a square number.
    Raises: StageError naming the codec and the image if a pixel comes back changed.
    """
    pictures = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    bytes_by_file = [_size(codec, picture, f"test image {index}") for index, picture in enumerate(pictures)]
    bytes_in_one = _size(codec, join(pictures), "the joined picture")
    return ReferenceCodec(
        codec=codec.name,
        settings=codec.settings,
        package=codec.package,
        library=codec.library,
        file_bits_per_subpixel=8 * sum(bytes_by_file) / pictures.size,
        joined_bits_per_subpixel=8 * bytes_in_one / pictures.size,
        num_images=len(pictures),
    )


def join(pictures: np.ndarray) -> Picture:
    """A square of tiles, row by row. Shapes: (K * K, H, W, 3) -> (K * H, K * W, 3)."""
    count, height, width, channels = pictures.shape
    side = math.isqrt(count)
    tiles = pictures.reshape(side, side, height, width, channels)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3, 4).reshape(side * height, side * width, channels))


def _size(codec: Codec, picture: Picture, what: str) -> int:
    data = codec.encode(picture)
    if not np.array_equal(codec.decode(data, picture.shape), picture):
        raise StageError(f"{codec.name} ({codec.settings}): {what} does not come back pixel by pixel: not lossless")
    return len(data)


def _image(
    name: str, settings: str, library: str, encode: Callable[[Picture], Encoded], decode: Callable[[Encoded], Picture]
) -> Codec:
    return Codec(name, settings, _imagecodecs(), library, encode, lambda data, shape: decode(data))


def _imagecodecs() -> str:
    return f"imagecodecs {version('imagecodecs')}"


def _jpegls(picture: Picture) -> bytes:
    """With room for noise, which the format makes longer than its pixels; the package's own room is too small."""
    return bytes(imagecodecs.jpegls_encode(picture, out=2 * picture.size + 1024))


def _bzip2(picture: Picture) -> bytes:
    """A coder of plain bytes: it gets the planes one after the other, and no header."""
    return bytes(imagecodecs.bz2_encode(picture.transpose(2, 0, 1).tobytes(), level=9))


def _read_bzip2(data: Encoded, shape: tuple[int, ...]) -> Picture:
    height, width, channels = shape
    planes = np.frombuffer(imagecodecs.bz2_decode(data), np.uint8)
    return planes.reshape(channels, height, width).transpose(1, 2, 0)


def _png(picture: Picture) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", optimize=True)
    return file.getvalue()


def _read_png(data: Encoded, shape: tuple[int, ...]) -> Picture:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        return np.asarray(picture)
