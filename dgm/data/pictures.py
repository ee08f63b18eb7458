"""PNG files of one image size, read and written without loss. Content decides what a file is, not its name."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dgm.errors import StageError
from dgm.runs.atomic import atomic_file
from dgm.types import ImageSpec

SIGNATURE = b"\x89PNG\r\n\x1a\n"
IHDR = struct.Struct(">8s4x4sIIBB")  # signature, length, chunk, width, height, bit depth, colour type
RGB = 2
MAX_LISTED = 10


@dataclass(frozen=True)
class PictureFolder:
    """The PNG files of one folder in alphabetical order, and what else is in it.

    images: file name -> uint8 (3, H, W). skipped: name -> why it was not read.
    """

    images: dict[str, np.ndarray]
    skipped: dict[str, str]

    def skipped_line(self, folder: Path) -> str:
        """One line that names what was skipped, empty if nothing was."""
        if not self.skipped:
            return ""
        listed = [f"{name} ({reason})" for name, reason in list(self.skipped.items())[:MAX_LISTED]]
        rest = len(self.skipped) - len(listed)
        return f"{folder}: skipped {', '.join(listed)}" + (f" and {rest} more" if rest else "")


def read_folder(folder: Path, spec: ImageSpec) -> PictureFolder:
    """Every PNG image of a folder, whatever its name; sub-folders and other files are skipped and listed.

    Raises: StageError naming a PNG file that cannot be kept without loss (another size, transparency, 16 bits,
    damaged), a file that is named .png but is none, or a folder that holds no PNG image.
    """
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise StageError(f"{folder}: no folder that can be read ({error.strerror})") from None
    images: dict[str, np.ndarray] = {}
    skipped: dict[str, str] = {}
    for path in paths:
        reason = _reason_to_skip(path)
        if reason:
            skipped[path.name] = reason
        else:
            images[path.name] = read_png(path, spec)
    if not images:
        content = "only " + PictureFolder({}, skipped).skipped_line(folder).partition("skipped ")[2] if skipped else ""
        remedy = f"put {spec.width}x{spec.height} RGB PNG files there"
        raise StageError(f"{folder}: {content or 'empty'}; {remedy}")
    return PictureFolder(images, skipped)


def read_png(path: Path, spec: ImageSpec) -> np.ndarray:
    """The pixels of one file. Shapes: -> uint8 (3, H, W).

    Raises: StageError naming the file if it is not an 8-bit RGB PNG of the wanted size, or damaged.
    """
    wanted = f"an 8-bit RGB PNG of {spec.width}x{spec.height} pixels"
    try:
        data = path.read_bytes()
        if not data.startswith(SIGNATURE):
            raise ValueError("the content is not in PNG format")
        _, chunk, width, height, depth, colour = IHDR.unpack_from(data)
        if chunk != b"IHDR":
            raise ValueError("damaged header")
        if (width, height, depth, colour) != (spec.width, spec.height, 8, RGB):
            raise ValueError(f"{width}x{height} pixels, {depth} bits, PNG colour type {colour}")
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            picture.load()
            if "transparency" in picture.info or getattr(picture, "is_animated", False):
                raise ValueError("transparent or animated")
            return np.asarray(picture).transpose(2, 0, 1).copy()
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise StageError(f"{path}: not {wanted} ({error})") from None


def write_pngs(paths: Sequence[Path], images: np.ndarray) -> None:
    """One PNG file per image; all files or none.

    Shapes: images uint8 (N, 3, H, W), N paths. Raises: OSError naming the file that cannot be written.
    """
    written: list[Path] = []
    try:
        for path, image in zip(paths, images, strict=True):
            with atomic_file(path) as file:
                Image.fromarray(image.transpose(1, 2, 0)).save(file, format="PNG", optimize=True)
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def is_png(path: Path) -> bool:
    """Whether the file begins as a PNG file does. Raises: StageError naming the file if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError as error:
        raise StageError(f"{path}: cannot be read ({error.strerror})") from None


def _reason_to_skip(path: Path) -> str:
    """Empty for what has to be read: PNG content, or the promise of it in the name of a file that is not hidden."""
    if path.is_dir():
        return "a folder"
    if not path.is_file():
        return "a broken link" if path.is_symlink() else "not a regular file"
    is_promised = path.suffix.lower() == ".png" and not path.name.startswith(".")
    return "" if is_promised or is_png(path) else "not a PNG image"
