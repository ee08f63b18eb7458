"""The proof of a bound: test images in a real file by bits-back coding, read back, and its length beside the bound.

A file is as long as the bound with one draw of the latents. That bound is scored here in both of the ways that figures
come from: with the divergence as the model computes it, and by one importance weight, which knows nothing of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from dgm.coding.alone import Coder
from dgm.coding.bits_back import compress_by_bits_back, num_initial_bits
from dgm.coding.codec import Track
from dgm.coding.container import HEADER, write_compressed
from dgm.coding.proof import Decode, Proven, Written, read_back
from dgm.errors import StageError
from dgm.model_api.contracts import LatentVariableModel
from dgm.model_api.scoring import score_images
from dgm.seeds import Stream
from dgm.types import Images
from dgm.units import nats_to_bits_per_subpixel

LARGEST_DIFFERENCE = 0.01  # between the file and the bound, relative; the file's header counts apart
SCORED_AT_ONCE = 100  # images
ONE_WEIGHT = "one importance weight"


def prove_bound(coder: Coder, images: Images, path: Path, decode: Decode, seed: int, track: Track = iter) -> Proven:
    """Writes `images` by bits-back coding and reads them back; the claim is the bound with one draw, by `seed`.

    Raises: StageError if an image is not decoded exactly, or if the file and the bound are over 1% apart.
    """
    if not isinstance(coder.model, LatentVariableModel):
        raise TypeError(f"{coder.name} has no latents")
    began = time.process_time()
    compressed = compress_by_bits_back(coder.model, images, coder.identity, track)
    encode_seconds = time.process_time() - began
    write_compressed(path, compressed)
    initial_bits = num_initial_bits(compressed)
    num_subpixels = len(images) * coder.model.spec.num_subpixels
    measured = (compressed.num_bits - initial_bits) / num_subpixels
    claims = one_draw_bounds(coder.model, images, seed)
    for way, claimed in claims.items():
        allowed = LARGEST_DIFFERENCE * claimed + 8 * HEADER.size / num_subpixels
        if not (math.isfinite(claimed) and abs(measured - claimed) <= allowed):
            raise StageError(
                f"{path}: {measured:.4f} bits per sub-pixel, but {way} is {claimed:.4f} for these images: over "
                f"{LARGEST_DIFFERENCE:.0%} apart, so one of the two is wrong"
            )
    written = Written(measured, claims[ONE_WEIGHT], encode_seconds, initial_bits)
    return read_back(coder, images, path, decode, written)


def one_draw_bounds(model: LatentVariableModel, images: Images, seed: int) -> Mapping[str, float]:
    """Bits per sub-pixel of the bound with one draw of the latents, by each way to compute it."""
    ways = {
        "the bound by its terms": model.log_likelihood,
        ONE_WEIGHT: partial(model.importance_weighted, num_samples=1),
    }
    bits: dict[str, float] = {}
    for position, (way, score) in enumerate(ways.items()):
        starts = range(0, len(images), SCORED_AT_ONCE)
        scored = score_images(
            score, images, starts, SCORED_AT_ONCE, seed, Stream.EVALUATION, position, device=model.device
        )
        bits[way] = -float(nats_to_bits_per_subpixel(scored.nats.mean(), model.spec))
    return bits
