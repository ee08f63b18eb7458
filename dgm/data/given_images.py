"""What a user gives as images, checked and turned into one uint8 tensor: files, folders, arrays, tensors."""

from __future__ import annotations

import lzma
import struct
import sys
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from dgm.data.pictures import SIGNATURE, read_folder, read_png
from dgm.errors import StageError
from dgm.types import Images, ImageSpec

ImageSource: TypeAlias = str | Path | np.ndarray | Tensor
NPZ_KEY = "images"
UNREADABLE = (  # what numpy, zipfile and the parsers under them raise for a damaged file
    *(OSError, ValueError, EOFError, SyntaxError, MemoryError, RuntimeError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError, struct.error),
)
NPY_MAGIC, ZIP_MAGIC = b"\x93NUMPY", b"PK"


@dataclass(frozen=True)
class GivenImages:
    """images: uint8 (N, C, H, W), N at least 1. names: (N,), file names where there are files, else numbers from 0."""

    images: Images
    names: list[str]


def given_images(source: ImageSource, spec: ImageSpec) -> GivenImages:
    """The images of a folder of PNG files, a PNG, .npy or .npz file, a numpy array or a torch tensor.

    Arrays are uint8 (N, C, H, W) or (N, H, W, C); an .npz file holds one array, or one under the key `images`. What a
    folder holds beside PNG images is skipped and listed on stderr.
    Raises: StageError that says what came and what was expected.
    """
    if isinstance(source, str | Path):
        return _from_path(Path(source), spec)
    images = _checked(source, "", spec)
    return GivenImages(images, [str(index) for index in range(len(images))])


def _from_path(path: Path, spec: ImageSpec) -> GivenImages:
    try:
        if path.is_dir():
            return _from_folder(path, spec)
        if path.exists() and not path.is_file():
            raise StageError(f"{path}: neither a file nor a folder")
        with path.open("rb") as file:
            start = file.read(len(SIGNATURE))
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise StageError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if start.startswith((NPY_MAGIC, ZIP_MAGIC)):
        images = _checked(_read_array(path), f"{path}: ", spec)
        return GivenImages(images, [str(index) for index in range(len(images))])
    if start == SIGNATURE or path.suffix.lower() == ".png":
        return GivenImages(torch.from_numpy(read_png(path, spec)).unsqueeze(0), [path.name])
    raise StageError(f"{path}: neither a folder of PNG files nor a PNG, .npy or .npz file")


def _from_folder(path: Path, spec: ImageSpec) -> GivenImages:
    folder = read_folder(path, spec)
    if folder.skipped:
        print(folder.skipped_line(path), file=sys.stderr)
    return GivenImages(torch.from_numpy(np.stack(list(folder.images.values()))), list(folder.images))


def _read_array(path: Path) -> np.ndarray:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            key = content.files[0] if len(content.files) == 1 else NPZ_KEY
            if key not in content.files:
                found = ", ".join(content.files[:10]) or "none"
                raise StageError(f"{path}: must hold one array, or one under the key {NPZ_KEY}; it holds {found}")
            return np.asarray(content[key])
    except StageError:
        raise
    except UNREADABLE as error:
        raise StageError(f"{path}: damaged, or not a plain numpy file ({_first_line(error)})") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _checked(value: object, where: str, spec: ImageSpec) -> Images:
    """The value as a uint8 tensor (N, C, H, W) of its own memory order. Raises: StageError."""
    channels, height, width = spec.shape
    expected = f"expected uint8 (N, {channels}, {height}, {width})"
    found = _description(value)
    if isinstance(value, Tensor):
        is_plain = value.dtype == torch.uint8 and value.layout == torch.strided and value.device.type != "meta"
    else:
        is_masked = isinstance(value, np.ma.MaskedArray)
        is_plain = isinstance(value, np.ndarray) and value.dtype == np.uint8 and not is_masked
    shape = tuple(getattr(value, "shape", ()))
    is_first, is_last = shape[1:] == spec.shape, shape[1:] == (height, width, channels)
    if not is_plain or not (is_first or is_last) or len(shape) != 4:
        raise StageError(f"{where}{found}, {expected}{_hint(value, shape, spec)}")
    if shape[0] == 0:
        raise StageError(f"{where}{found}: there is no image in it")
    if is_first and is_last and channels > 1:
        raise StageError(f"{where}{found}: channels first and channels last both fit, so the order is not known")
    images = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    images = images if is_first else images.permute(0, 3, 1, 2)
    if int(images.max()) >= spec.levels:
        raise StageError(f"{where}{found}: holds {int(images.max())}, the levels are 0 to {spec.levels - 1}")
    return images.contiguous()


def _description(value: object) -> str:
    """'numpy array float32 (4, 32, 32, 3)', 'torch tensor uint8 (2, 3)', 'list'."""
    if isinstance(value, Tensor):
        kind = (
            "torch tensor"
            if value.layout == torch.strided
            else f"{str(value.layout).removeprefix('torch.')} torch tensor"
        )
        kind = f"meta {kind}" if value.device.type == "meta" else kind
        return f"{kind} {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        kind = "numpy array" if not isinstance(value, np.ma.MaskedArray) else "masked numpy array"
        return f"{kind} {value.dtype} {value.shape}"
    return type(value).__name__


def _hint(value: object, shape: tuple[int, ...], spec: ImageSpec) -> str:
    """How to mend what is nearly right, empty where nothing is known."""
    channels, height, width = spec.shape
    if shape in (spec.shape, (height, width, channels)):
        return "; for one image add the first axis: images[None]"
    is_array = isinstance(value, np.ndarray | Tensor)
    is_mistyped = is_array and value.dtype not in (np.uint8, torch.uint8)
    if is_mistyped and shape[1:] in (spec.shape, (height, width, channels)):
        return f"; give the grey levels 0 to {spec.levels - 1} as uint8"
    return "" if is_array else ", as a numpy array or torch tensor, or the path of a folder of PNG files"
