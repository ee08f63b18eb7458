"""The proof of a likelihood: test images written to a real file, read back, and the file's length beside the claim.

They are read back by a process that has the file and the weights only, so nothing but the file can have told it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dgm.coding.alone import Coder, Decoded
from dgm.coding.codec import Track, compress
from dgm.coding.container import write_compressed
from dgm.data.verify import sha256_of_array
from dgm.errors import StageError
from dgm.model_api.contracts import AutoregressiveModel, Model
from dgm.runs.atomic import file_digest
from dgm.types import Images
from dgm.units import nats_to_bits_per_subpixel

LARGEST_DIFFERENCE = 0.005  # between the file and the claim, relative
Decode = Callable[[Coder, Path], Decoded]


@dataclass(frozen=True)
class Proven:
    """What the coder really wrote and read.

    Bits per sub-pixel of the file, header included, and as claimed; decoded_sha256: of the decoded images, uint8.
    initial_bits: of bits-back coding, in the file but left out of the bits per sub-pixel.
    """

    file_bytes: int
    compressed_bits_per_subpixel: float
    claimed_bits_per_subpixel: float
    encode_core_seconds: float
    decode_core_seconds: float
    file_sha256: str
    decoded_sha256: str
    initial_bits: int = 0


@dataclass(frozen=True)
class Written:
    """A written file: its bits per sub-pixel, those that the model claims, and the processor time of writing it."""

    measured: float
    claimed: float
    core_seconds: float
    initial_bits: int = 0


def prove(
    coder: Coder, images: Images, claimed_nats: np.ndarray, path: Path, decode: Decode, track: Track = iter
) -> Proven:
    """Writes `images`, whose evaluation claims `claimed_nats` (N,) natural-log probabilities, and reads them back.

    Raises: StageError if an image is not decoded exactly, if the file and the claim are over 0.5% apart, or if the
    claim is not a number for each image.
    """
    if not isinstance(coder.model, AutoregressiveModel):
        raise TypeError(f"{coder.name} has no exact conditionals")
    if claimed_nats.shape != (len(images),):
        raise StageError(
            f"{path}: claims {claimed_nats.shape} do not fit {len(images)} images; evaluate the model again"
        )
    began = time.process_time()
    compressed = compress(coder.model, images, coder.identity, track)
    encode_seconds = time.process_time() - began
    write_compressed(path, compressed)
    measured, claimed = bits_of(path, coder.model, claimed_nats)
    if not (math.isfinite(claimed) and abs(measured - claimed) <= LARGEST_DIFFERENCE * claimed):
        raise StageError(
            f"{path}: {measured:.4f} bits per sub-pixel, but the model claims {claimed:.4f} for these images: over "
            f"{LARGEST_DIFFERENCE:.1%} apart, so one of the two is wrong"
        )
    return read_back(coder, images, path, decode, Written(measured, claimed, encode_seconds))


def bits_of(path: Path, model: Model, claimed_nats: np.ndarray) -> tuple[float, float]:
    """Bits per sub-pixel of a file of as many images, header included, and as claimed. Shapes: claimed_nats (N,)."""
    measured = 8 * path.stat().st_size / (len(claimed_nats) * model.spec.num_subpixels)
    return measured, -float(nats_to_bits_per_subpixel(claimed_nats.mean(), model.spec))


def read_back(coder: Coder, images: Images, path: Path, decode: Decode, written: Written) -> Proven:
    """What another process makes of the file at `path`. Raises: StageError if an image is not decoded exactly."""
    decoded = decode(coder, path)
    sha256, expected = sha256_of_array(decoded.images.numpy()), sha256_of_array(images.cpu().numpy())
    if sha256 != expected:
        raise StageError(
            f"{path}: the decoded images differ from the test images: their SHA-256 is {sha256}, not {expected}"
        )
    return Proven(
        file_bytes=path.stat().st_size,
        compressed_bits_per_subpixel=written.measured,
        claimed_bits_per_subpixel=written.claimed,
        encode_core_seconds=written.core_seconds,
        decode_core_seconds=decoded.core_seconds,
        file_sha256=file_digest(path),
        decoded_sha256=sha256,
        initial_bits=written.initial_bits,
    )
