"""The proof of a likelihood: test images written to a real file, read back, and the file's length beside the claim."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from dgm.coding.codec import Track, compress, decompress
from dgm.coding.container import read_compressed, write_compressed
from dgm.errors import StageError
from dgm.model_api.contracts import AutoregressiveModel
from dgm.runs.records import Compression
from dgm.types import Images
from dgm.units import nats_to_bits_per_subpixel

LARGEST_DIFFERENCE = 0.005  # between the file and the claim, relative


def prove(
    model: AutoregressiveModel,
    images: Images,
    claimed_nats: np.ndarray,
    path: Path,
    identity: int,
    name: str,
    profile: str,
    track: Track,
) -> Compression:
    """What the coder really wrote for `images`, whose evaluation claims `claimed_nats` (N,) natural-log probabilities.

    Raises: StageError if an image is not decoded exactly, if the file and the claim are over 0.5% apart, or if the
    claim is not a number for each image.
    """
    if claimed_nats.shape != (len(images),):
        raise StageError(
            f"{path}: claims {claimed_nats.shape} do not fit {len(images)} images; evaluate the model again"
        )
    write_compressed(path, compress(model, images, identity, track))
    content = read_compressed(path, identity, name)
    if not torch.equal(decompress(model, content, track), images):
        raise StageError(f"{path}: the decoded images differ from the test images")
    claimed = -float(nats_to_bits_per_subpixel(claimed_nats.mean(), model.spec))
    measured = content.num_bits / (len(images) * model.spec.num_subpixels)
    if not (math.isfinite(claimed) and abs(measured - claimed) <= LARGEST_DIFFERENCE * claimed):
        raise StageError(
            f"{path}: {measured:.4f} bits per sub-pixel, but the model claims {claimed:.4f} for these images: over "
            f"{LARGEST_DIFFERENCE:.1%} apart, so one of the two is wrong"
        )
    size = path.stat().st_size
    return Compression(name, profile, measured, claimed, len(images), size, True, "decoded, pixel by pixel equal")
