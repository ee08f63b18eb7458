"""Pictures of pixels for the page: samples, and the easiest and hardest test images, as data within the page."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dgm.errors import StageError
from dgm.reporting.charts import Picture
from dgm.reporting.rows import Row
from dgm.runs.picture import SCALE, has_completions, tile, untiled
from dgm.runs.system_errors import errno_of, reason_of, unreadable
from dgm.small_files import check_regular, is_there
from dgm.types import CIFAR10
from dgm.units import nats_to_bits_per_subpixel

NUM_EXTREMES = 12  # images at either end
DRAWN = "drawn from the model, one after the other, none chosen"
UNREADABLE = (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)  # pillow's, too
COMPLETED = (
    "Below the gap: test images, and under each of them the model's completion. The upper half is given, the lower "
    "half is drawn."
)


@dataclass(frozen=True)
class Samples:
    """The picture of samples with its caption, and how often each level occurs in the drawn images."""

    picture: Picture
    caption: str
    level_counts: np.ndarray  # int64 (256,)


@dataclass(frozen=True)
class Extremes:
    """Test images at one end of the ranking by bits, with the bits of each."""

    picture: Picture
    bits: Sequence[float]


def read_samples(path: Path, name: str) -> Samples | None:
    """None without a file. Raises: StageError naming the file if it is no picture of samples."""
    if not is_there(path):
        return None
    try:
        check_regular(path)
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        drawn = untiled(pixels)
    except UNREADABLE as error:
        is_damaged, remedy = errno_of(error) is None, "draw the samples again (`dvc repro`)"
        what = f"{reason_of(error)}; {remedy}" if is_damaged else unreadable(error, remedy)
        raise StageError(f"{path}: {what}") from None
    caption = f"{len(drawn)} images {DRAWN}."
    text = f"{len(drawn)} images drawn from {name}"
    if has_completions(pixels):
        caption, text = f"{caption} {COMPLETED}", f"{text}, and completions of test images"
    counts = np.bincount(drawn.reshape(-1), minlength=CIFAR10.levels)
    return Samples(_picture(pixels[::SCALE, ::SCALE], text), caption, counts)


def extremes(row: Row, test: np.ndarray) -> tuple[Extremes, Extremes] | None:
    """The easiest and the hardest test images of a row; None if its nats are not here or of fewer images.

    Shapes: test uint8 (N, C, H, W).
    """
    if row.nats is None or len(row.nats) > len(test):
        return None
    bits = -np.asarray(nats_to_bits_per_subpixel(row.nats, CIFAR10))
    order = np.argsort(bits, kind="stable")
    return _end(order[:NUM_EXTREMES], bits, test, "easiest"), _end(order[::-1][:NUM_EXTREMES], bits, test, "hardest")


def _end(indices: np.ndarray, bits: np.ndarray, test: np.ndarray, which: str) -> Extremes:
    shown = [float(bits[index]) for index in indices]
    text = f"The {len(indices)} {which} test images, {shown[0]:.2f} to {shown[-1]:.2f} bits per sub-pixel"
    return Extremes(_picture(tile(test[indices], len(indices) // 2), text), shown)


def _picture(pixels: np.ndarray, text: str) -> Picture:
    """Shapes: pixels uint8 (height, width, 3), shown at the screen's scale."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(uri, text, pixels.shape[1] * SCALE)
