"""The proof of a bound: test images in a real file by bits-back coding, read back, and its length beside the bound.

A file is as long as the bound with one draw of the latents. That bound is scored here in both of the ways that figures
come from: with the divergence as the model computes it, and by one importance weight, which knows nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from dgm.coding.bits_back import compress_by_bits_back, decompress_by_bits_back, num_initial_bits
from dgm.coding.codec import Track
from dgm.coding.container import HEADER, read_compressed, write_compressed
from dgm.errors import StageError
from dgm.model_api.contracts import LatentVariableModel
from dgm.model_api.scoring import score_images
from dgm.runs.records import Compression
from dgm.seeds import Stream
from dgm.types import Images
from dgm.units import nats_to_bits_per_subpixel

LARGEST_DIFFERENCE = 0.01  # between the file and the bound, relative; the file's header counts apart
SCORED_AT_ONCE = 100  # images


def prove_bound(
    model: LatentVariableModel,
    images: Images,
    path: Path,
    identity: int,
    name: str,
    profile: str,
    seed: int,
    track: Track,
) -> Compression:
    """What bits-back coding really wrote for `images`, its initial bits apart, beside the bound with one draw.

    Raises: StageError if an image is not decoded exactly, or if the file and the bound are over 1% apart.
    """
    write_compressed(path, compress_by_bits_back(model, images, identity, track))
    content = read_compressed(path, identity, name)
    if not torch.equal(decompress_by_bits_back(model, content, track), images):
        raise StageError(f"{path}: the decoded images differ from the test images")
    num_subpixels = len(images) * model.spec.num_subpixels
    measured = (content.num_bits - num_initial_bits(content)) / num_subpixels
    claims = one_draw_bounds(model, images, seed)
    for way, claimed in claims.items():
        allowed = LARGEST_DIFFERENCE * claimed + 8 * HEADER.size / num_subpixels
        if not (math.isfinite(claimed) and abs(measured - claimed) <= allowed):
            raise StageError(
                f"{path}: {measured:.4f} bits per sub-pixel, but {way} is {claimed:.4f} for these images: over "
                f"{LARGEST_DIFFERENCE:.0%} apart, so one of the two is wrong"
            )
    return Compression(
        name,
        profile,
        measured,
        claims["one importance weight"],
        len(images),
        path.stat().st_size,
        True,
        "decoded, pixel by pixel equal",
        initial_bits=num_initial_bits(content),
    )


def one_draw_bounds(model: LatentVariableModel, images: Images, seed: int) -> Mapping[str, float]:
    """Bits per sub-pixel of the bound with one draw of the latents, by each way to compute it."""
    ways = {
        "the bound by its terms": model.log_likelihood,
        "one importance weight": partial(model.importance_weighted, num_samples=1),
    }
    bits: dict[str, float] = {}
    for position, (way, score) in enumerate(ways.items()):
        starts = range(0, len(images), SCORED_AT_ONCE)
        scored = score_images(
            score, images, starts, SCORED_AT_ONCE, seed, Stream.EVALUATION, position, device=model.device
        )
        bits[way] = -float(nats_to_bits_per_subpixel(scored.nats.mean(), model.spec))
    return bits
