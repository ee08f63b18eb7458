"""The compressed file: a 32-byte header that refuses what it cannot decode, then the entropy coder's words."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dgm.errors import StageError
from dgm.runs.atomic import atomic_file

MAGIC = b"DGM"
VERSION = 1
HEADER = struct.Struct("<3sBIQQQ")  # magic, version, images, identity, checksum of the pixels, checksum of all else


@dataclass(frozen=True)
class Compressed:
    """num_images images of the model whose identity this is; words: uint32, the range coder's output."""

    num_images: int
    identity: int
    pixels_checksum: int
    words: np.ndarray

    @property
    def num_bits(self) -> int:
        """Bits of the whole file, header included."""
        return 8 * (HEADER.size + self.words.nbytes)


def checksum(*parts: bytes) -> int:
    """First 64 bits of SHA-256 over the parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return int.from_bytes(digest.digest()[:8], "little")


def write_compressed(path: Path, content: Compressed) -> None:
    """Writes the file, whole or not at all."""
    payload = content.words.astype("<u4").tobytes()
    fields = (content.num_images, content.identity, content.pixels_checksum)
    whole = checksum(HEADER.pack(MAGIC, VERSION, *fields, 0), payload)
    with atomic_file(path) as file:
        file.write(HEADER.pack(MAGIC, VERSION, *fields, whole) + payload)


def is_compressed(path: Path) -> bool:
    """Whether `path` is a file that begins as a compressed image file does."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_compressed(path: Path, identity: int, model: str) -> Compressed:
    """The checked content. Raises: StageError naming the file if it is damaged or of another version or model."""
    try:
        if path.exists() and not path.is_file():  # a folder, or a device or pipe that need not end
            raise StageError(f"{path}: cannot be read (not a regular file)")
        with path.open("rb") as file:
            data = file.read(HEADER.size)
            data += file.read() if data.startswith(MAGIC) else b""
    except OSError as error:
        raise StageError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise StageError(f"{path}: not a compressed image file of this benchmark; name one that `dgm compress` wrote")
    _, version, num_images, found_identity, pixels, whole = HEADER.unpack_from(data)
    if version != VERSION:
        raise StageError(f"{path}: format version {version}; this code reads {VERSION}: use the code that wrote it")
    payload = data[HEADER.size :]
    if whole != checksum(HEADER.pack(MAGIC, version, num_images, found_identity, pixels, 0), payload):
        raise StageError(f"{path}: truncated or altered (its checksum does not fit); compress the images again")
    if num_images == 0 or len(payload) % 4:
        raise StageError(f"{path}: damaged (no images, or a part of a word at its end); compress the images again")
    if found_identity != identity:
        what = f"written with another model, other weights or other code than this {model}"
        raise StageError(f"{path}: {what}; decompress with those")
    return Compressed(num_images, found_identity, pixels, np.frombuffer(payload, dtype="<u4").astype(np.uint32))
