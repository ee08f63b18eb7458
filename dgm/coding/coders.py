"""Images -> words -> images by the coder that fits a model: a queue for exact conditionals, a stack for a bound."""

from __future__ import annotations

from dgm.coding.bits_back import compress_by_bits_back, decompress_by_bits_back
from dgm.coding.codec import Track, compress, decompress
from dgm.coding.container import Compressed
from dgm.model_api.contracts import AutoregressiveModel, Model
from dgm.types import Images


def encode(model: Model, images: Images, identity: int, track: Track = iter) -> Compressed:
    """The images in words. track: wraps the sub-pixels, or the images where a bound is coded."""
    if isinstance(model, AutoregressiveModel):
        return compress(model, images, identity, track)
    return compress_by_bits_back(model, images, identity, track)


def decode(model: Model, compressed: Compressed, track: Track = iter) -> Images:
    """The images, from the words and the weights alone. Shapes: -> uint8 (N, C, H, W).

    Raises: StageError if they are not the images that were compressed.
    """
    if isinstance(model, AutoregressiveModel):
        return decompress(model, compressed, track)
    return decompress_by_bits_back(model, compressed, track)
