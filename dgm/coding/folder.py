"""A folder of PNG files <-> one compressed file: pixels by the model, names beside them, in alphabetical order.

The file is a container as container.py writes it, whose words begin with the names:
    number of bytes of the names, the names as JSON padded to whole words, then the coder's words.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dgm.coding.codec import compress, decompress, identity_of
from dgm.coding.container import Compressed, read_compressed, write_compressed
from dgm.errors import StageError
from dgm.model_api.contracts import AutoregressiveModel
from dgm.runs.atomic import atomic_file
from dgm.types import Images, ImageSpec

VERSION = "folder 1"  # part of the identity: a file of another layout is refused, and one without names too
IHDR = struct.Struct(">8s4x4sIIBB")  # signature, length, chunk, width, height, bit depth, colour type
RGB = 2


def compress_folder(model: AutoregressiveModel, name: str, code: str, folder: Path, path: Path) -> float:
    """Bits per sub-pixel of the file `path`, names and header included, that now holds every PNG of the folder.

    Raises: StageError naming a file of the folder that is no 8-bit RGB PNG of the model's size.
    """
    files = read_folder(folder, model.spec)
    content = compress(model, torch.stack(list(files.values())), identity_of(model, name, f"{code} {VERSION}"))
    content = replace(content, words=np.concatenate([_pack(list(files)), content.words]))
    write_compressed(path, content)
    return content.num_bits / (len(files) * model.spec.num_subpixels)


def decompress_folder(model: AutoregressiveModel, name: str, code: str, path: Path, folder: Path) -> list[Path]:
    """The files that now are in the folder, which must be new or empty: the same pixels under the same names.

    Raises: StageError if the compressed file is damaged or of another model, weights or version; nothing is written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StageError(f"{folder}: exists and is not an empty folder; name another one")
    content = read_compressed(path, identity_of(model, name, f"{code} {VERSION}"), name)
    names, words = _unpack(content, path)
    try:
        images = decompress(model, replace(content, words=words))
    except StageError as error:
        raise StageError(f"{path}: {error}") from None
    for file_name, image in zip(names, images, strict=True):
        with atomic_file(folder / file_name) as file:
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, format="PNG", optimize=True)
    return [folder / file_name for file_name in names]


def read_folder(folder: Path, spec: ImageSpec) -> dict[str, Images]:
    """File name -> uint8 (3, H, W), in alphabetical order. Raises: StageError naming what is no such PNG."""
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise StageError(f"{folder}: no folder that can be read ({error.strerror})") from None
    if not paths:
        raise StageError(f"{folder}: empty; put {spec.width}x{spec.height} RGB PNG files there")
    return {path.name: _read_png(path, spec) for path in paths}


def _read_png(path: Path, spec: ImageSpec) -> Images:
    wanted = f"an 8-bit RGB PNG of {spec.width}x{spec.height} pixels"
    try:
        data = path.read_bytes()
        signature, chunk, width, height, depth, colour = IHDR.unpack_from(data)
        if path.suffix != ".png" or signature != b"\x89PNG\r\n\x1a\n" or chunk != b"IHDR":
            raise ValueError("no file in that format and of that name")
        if (width, height, depth, colour) != (spec.width, spec.height, 8, RGB):
            raise ValueError(f"{width}x{height} pixels, {depth} bits, PNG colour type {colour}")
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            picture.load()
            if "transparency" in picture.info or getattr(picture, "is_animated", False):
                raise ValueError("transparent or animated")
            return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise StageError(f"{path}: not {wanted} ({error})") from None


def _pack(names: list[str]) -> np.ndarray:
    data = json.dumps(names, ensure_ascii=False).encode("utf-8")
    padded = data + bytes(-len(data) % 4)
    return np.concatenate([np.array([len(data)], np.uint32), np.frombuffer(padded, "<u4").astype(np.uint32)])


def _unpack(content: Compressed, path: Path) -> tuple[list[str], np.ndarray]:
    num_bytes = int(content.words[0])
    first = 1 + -(-num_bytes // 4)
    names = json.loads(content.words[1:first].astype("<u4").tobytes()[:num_bytes])
    if any(Path(name).name != name or not name.endswith(".png") for name in names):
        raise StageError(f"{path}: holds names that are no PNG files of the folder")
    return names, content.words[first:]
