"""An entropy coder driven by a model: its file length proves the likelihood, its decoder proves the causality.

Encoder and decoder ask the same `Conditionals` object for the same probabilities in the same batch, with sums in the
same order, so that float noise cannot part them; what differs between machines is refused by the decoder or by the
checksum of the pixels, never returned.

The coder rounds probabilities to 24 bits and gives every level at least 2^-24: a sub-pixel that a model holds nearly
impossible costs 24 bits where its claim is more, so a file may also end slightly below the claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import constriction
import numpy as np
import torch
from torch import Tensor

from dgm.coding.container import Compressed, checksum
from dgm.errors import StageError
from dgm.model_api.contracts import AutoregressiveModel, Model
from dgm.types import Images

Track = Callable[[Sequence[int]], Iterable[int]]

# constriction is one extension module: its parts are attributes, not modules to import from
Categorical = constriction.stream.model.Categorical  # type: ignore[attr-defined]
RangeDecoder = constriction.stream.queue.RangeDecoder  # type: ignore[attr-defined]
RangeEncoder = constriction.stream.queue.RangeEncoder  # type: ignore[attr-defined]

OTHER_PROBABILITIES = (
    "the decoded pixels are not those that were compressed: the model is not causal, or this machine computes its "
    "probabilities differently from the one that compressed; decompress there"
)
SUBNORMAL = 1e-40  # in float32
MAX_IMAGES_AT_ONCE = 1000  # coded side by side; more come in further passes, so that memory does not grow with them


def identity_of(model: Model, name: str, code: str) -> int:
    """64 bits over the model's name, image size, weights and code: a file is only read by what wrote it."""
    parts = [name.encode(), repr(model.spec).encode(), code.encode()]
    for key, tensor in sorted(model.state_dict().items()):
        parts += [key.encode(), str(tensor.dtype).encode(), tensor.detach().cpu().contiguous().numpy().tobytes()]
    return checksum(*parts)


class UnusableProbabilitiesError(StageError):
    """Probabilities that are not finite: of weights that no training leaves, or of pixels that nobody compressed."""

    def __init__(self) -> None:
        super().__init__("the model's probabilities are not finite numbers: its weights are not usable; train it again")


@contextmanager
def sums_in_one_order() -> Generator[None]:
    """One thread, and on a GPU the convolutions that repeat themselves, not those that happened to be fastest.

    Otherwise a probability may differ in its last digit, and a file could not be read. Numbers below the type's normal
    range are zero, on either side alike: they are far below what the coder can tell, and processors are slow with them.
    """
    before, was_flushing = torch.get_num_threads(), not bool(torch.tensor(SUBNORMAL) * 1.0)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        cudnn = torch.backends.cudnn
        with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(was_flushing)


@sums_in_one_order()
@torch.no_grad()
def compress(model: AutoregressiveModel, images: Images, identity: int, track: Track = iter) -> Compressed:
    """The images as one range-coded stream, sub-pixel after sub-pixel in the model's order. Lossless.

    track: wraps the sub-pixels of each pass over at most MAX_IMAGES_AT_ONCE images.
    """
    model.check_images(images)
    model.eval()
    encoder, family = RangeEncoder(), Categorical(perfect=False)
    for batch in images.split(MAX_IMAGES_AT_ONCE):
        flat, conditionals = batch.flatten(1).long().to(model.device), model.conditionals(len(batch))
        for index in track(model.order().tolist()):
            symbols = flat[:, index]
            encoder.encode(symbols.cpu().numpy().astype(np.int32), family, probabilities_of(conditionals.log_pmf()))
            conditionals.push(symbols)
    return Compressed(len(images), identity, pixels_checksum_of(images), encoder.get_compressed())


@sums_in_one_order()
@torch.no_grad()
def decompress(model: AutoregressiveModel, compressed: Compressed, track: Track = iter) -> Images:
    """The images, from the words and the weights alone. Shapes: -> uint8 (N, C, H, W).

    Raises: StageError if they are not the images that were compressed; wrong pixels are never returned.
    """
    model.eval()
    num_images, spec = compressed.num_images, model.spec
    if 32 * (len(compressed.words) + 1) < num_images * spec.num_subpixels * _least_bits(spec.levels):
        raise StageError(f"{len(compressed.words)} words are too few for {num_images} images; compress them again")
    decoder, parts = RangeDecoder(compressed.words), list[Images]()
    for first in range(0, num_images, MAX_IMAGES_AT_ONCE):
        parts.append(_decode(model, decoder, min(MAX_IMAGES_AT_ONCE, num_images - first), track))
    images = torch.cat(parts)
    if not decoder.maybe_exhausted() or pixels_checksum_of(images) != compressed.pixels_checksum:
        raise StageError(OTHER_PROBABILITIES)
    return images


def _decode(model: AutoregressiveModel, decoder: Any, num_images: int, track: Track) -> Images:
    """The next images of the stream."""
    flat = torch.zeros(num_images, model.spec.num_subpixels, dtype=torch.uint8)
    conditionals, family = model.conditionals(num_images), Categorical(perfect=False)
    for index in track(model.order().tolist()):
        try:
            decoded = decoder.decode(family, probabilities_of(conditionals.log_pmf()))
        except (UnusableProbabilitiesError, AssertionError):  # constriction's, for words that nothing leads to
            raise StageError(OTHER_PROBABILITIES) from None
        symbols = torch.from_numpy(decoded.astype(np.int64))
        flat[:, index] = symbols.to(torch.uint8)
        conditionals.push(symbols.to(model.device))
    return flat.view(-1, *model.spec.shape)


def _least_bits(levels: int) -> float:
    """A lower bound on what one sub-pixel costs: every other level keeps a probability of at least 2^-24."""
    return (levels - 1) * 2.0**-24 / math.log(2)


def probabilities_of(log_pmf: Tensor) -> np.ndarray:
    """What the coder takes. Shapes: (N, levels) -> float32 (N, levels). Raises: UnusableProbabilitiesError."""
    probabilities: np.ndarray = torch.softmax(log_pmf.float(), dim=-1).cpu().numpy()
    if not np.isfinite(probabilities).all():
        raise UnusableProbabilitiesError
    return probabilities


def pixels_checksum_of(images: Images) -> int:
    """64 bits over the pixels, by which the decoder knows that it returns the right ones."""
    return checksum(images.cpu().contiguous().numpy().tobytes())
