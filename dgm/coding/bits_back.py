"""Bits-back coding: a file as long as a model's variational bound says, from which the images come back.

The coder is a stack. For each image, latents are taken off it under q(z | x), which shortens it by -log q; the pixels
go onto it under P(x | z) and the latents under p(z). The decoder goes the other way and, once it has the image, puts
back what q took. So an image costs -log P(x | z) - log p(z) + log q(z | x): the bound with one draw, and what the
stack held is the draw. The first image needs something to draw from: the initial bits. They are given back in the end,
whatever they were; here they are pseudo-random, and the decoder checks them, so that nothing about the images can hide
in them. Before each image, what it may take is exclusive-ored with pseudo-random words: the noise of one image would
otherwise be the latents of the image before, as good as it was put there, and the file not an unbiased draw.

Source: Townsend, Bird & Barber (2019), arXiv 1901.04866 (the chain of images on a stack); Townsend et al. (2020), arXiv
1912.09953 (many steps); Ho, Lohn & Abbeel (2019), arXiv 1905.08500 (the coordinates of a flow).
Differs: places relative to the prior, a posterior through noise (latent_coder.py): no posterior is too narrow, and that
of an inverse autoregressive flow is coded exactly.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import constriction
import numpy as np
import torch
from torch import Tensor

from dgm.coding.codec import (
    OTHER_PROBABILITIES,
    Categorical,
    Track,
    UnusableProbabilitiesError,
    pixels_checksum_of,
    probabilities_of,
    sums_in_one_order,
)
from dgm.coding.container import Compressed
from dgm.coding.latent_coder import LatentCoder, Normal, UnusableLatentsError
from dgm.coding.normal_grid import COARSE_BITS
from dgm.errors import StageError
from dgm.model_api.contracts import Model
from dgm.model_api.latent_steps import HasLatentSteps, LatentSteps
from dgm.types import Images

AnsCoder = constriction.stream.stack.AnsCoder  # type: ignore[attr-defined]

GRID_NATS_PER_SUBPIXEL = 5e-4  # what the grid of the latents may cost; finer ones need more initial bits
MAX_GRID_BITS = 15
NUM_MEASURED = 16  # images by which the grid is chosen
NUM_HEADER_WORDS = 2  # bits of the grid, number of initial words
UNTOUCHED = 4  # words that stay below the lowest that was used, so that the coder never runs dry


def num_initial_bits(compressed: Compressed) -> int:
    """Bits of the file that were there before the first image and come back after the last one."""
    return 32 * int(compressed.words[1])


@sums_in_one_order()
@torch.no_grad()
def compress_by_bits_back(model: Model, images: Images, identity: int, track: Track = iter) -> Compressed:
    """The images on one stack, the first on top. Lossless. track: wraps the numbers of the images."""
    model.check_images(images)
    model.eval()
    bits, num_latents = _grid_of(model, images[:NUM_MEASURED])
    num_reserved = _most_words(num_latents)
    coder = LatentCoder(AnsCoder(_random_words("initial bits", num_reserved), seal=True), bits)
    for index in track(range(len(images) - 1, -1, -1)):
        _scramble(coder, num_reserved, index)
        _encode(model, coder, images[index : index + 1].to(model.device))
    num_unused = max(0, coder.fewest_words - UNTOUCHED)
    header = np.array([bits, num_reserved - num_unused], np.uint32)
    words = np.concatenate([header, coder.stack.get_compressed()[num_unused:]])
    return Compressed(len(images), identity, pixels_checksum_of(images), words)


@sums_in_one_order()
@torch.no_grad()
def decompress_by_bits_back(model: Model, compressed: Compressed, track: Track = iter) -> Images:
    """The images, from the words and the weights alone. Shapes: -> uint8 (N, C, H, W).

    Raises: StageError if they are not the images that were compressed, or the initial bits do not come back.
    """
    model.eval()
    bits, num_initial = _header_of(compressed.words)
    try:
        coder = LatentCoder(AnsCoder(compressed.words[NUM_HEADER_WORDS:]), bits)
    except ValueError:  # constriction's, for a stack that ends with a word of zeros
        raise StageError(OTHER_PROBABILITIES) from None
    try:
        parts = [_decode(model, coder, index) for index in track(range(compressed.num_images))]
        initial = coder.stack.get_compressed(unseal=True)
    except (UnusableLatentsError, UnusableProbabilitiesError, AssertionError):  # constriction's: it ends otherwise
        raise StageError(OTHER_PROBABILITIES) from None
    images = torch.cat(parts)
    is_whole = np.array_equal(initial, _random_words("initial bits", num_initial))
    if not is_whole or pixels_checksum_of(images) != compressed.pixels_checksum:
        raise StageError(OTHER_PROBABILITIES)
    return images


def _header_of(words: np.ndarray) -> tuple[int, int]:
    """Bits of the grid, number of initial words. Raises: StageError if no file begins so."""
    if len(words) <= NUM_HEADER_WORDS:
        raise StageError(f"{len(words)} words are too few for images coded by bits-back; compress the images again")
    bits, num_initial = (int(word) for word in words[:NUM_HEADER_WORDS])
    if not COARSE_BITS <= bits <= MAX_GRID_BITS or num_initial > len(words):
        what = f"a grid of {bits} bits and {num_initial} initial words in {len(words)} words"
        raise StageError(f"damaged: {what}; compress the images again")
    return bits, num_initial


def _most_words(num_latents: int) -> int:
    """That one image takes off the stack: 48 bits for each latent at most."""
    return 2 * num_latents + 64


def _random_words(purpose: str, count: int) -> np.ndarray:
    """Pseudo-random words, the first of the sequence on top, so that fewer of them are the upper end of more."""
    data = hashlib.shake_256(purpose.encode()).digest(4 * count)
    return np.frombuffer(data, "<u4").astype(np.uint32)[::-1].copy()


def _scramble(coder: LatentCoder, most_words: int, index: int) -> None:
    """Makes what image `index` may take look random; a second time, undoes it.

    The word on top is left as it is: the coder needs it not to be zero.
    """
    words = coder.stack.get_compressed()
    count = min(most_words, len(words) - 1)
    words[len(words) - 1 - count : -1] ^= _random_words(f"image {index}", count)
    coder.stack = AnsCoder(words)


def _steps(model: Model, num_images: int, images: Images | None = None) -> LatentSteps:
    if not isinstance(model, HasLatentSteps):
        raise TypeError(f"{type(model).__name__} has no latent_steps")
    return model.latent_steps(num_images, images)


def _encode(model: Model, coder: LatentCoder, image: Images) -> None:
    """Puts one image onto the stack."""
    steps = _steps(model, 1, image)
    drawn: list[np.ndarray] = []
    for _ in range(steps.num_steps):
        prior = steps.prior()
        drawn.append(coder.pop_posterior(prior, steps.posterior()))
        steps.push(coder.latents(prior, drawn[-1]))
    symbols = image.flatten().cpu().numpy().astype(np.int32)
    coder.stack.encode_reverse(symbols, Categorical(perfect=False), _pixel_probabilities(steps))
    for index in reversed(drawn):
        coder.push_prior(index)


def _decode(model: Model, coder: LatentCoder, index: int) -> Images:
    """Takes one image off the stack. Shapes: -> uint8 (1, C, H, W)."""
    steps = _steps(model, 1)
    drawn: list[np.ndarray] = []
    for _ in range(steps.num_steps):
        prior = steps.prior()
        drawn.append(coder.pop_prior(prior))
        steps.push(coder.latents(prior, drawn[-1]))
    symbols = np.asarray(coder.stack.decode(Categorical(perfect=False), _pixel_probabilities(steps)))
    image = torch.from_numpy(symbols.astype(np.uint8)).view(1, *model.spec.shape)
    _put_back(_steps(model, 1, image.to(model.device)), coder, drawn)
    if coder.stack.num_words() < UNTOUCHED:
        raise StageError(OTHER_PROBABILITIES)
    _scramble(coder, _most_words(sum(len(places) for places in drawn)), index)
    return image


def _put_back(steps: LatentSteps, coder: LatentCoder, drawn: list[np.ndarray]) -> None:
    """Puts the latents back onto the stack under the posterior, the last step first."""
    seen = list[Any]()
    for index in drawn:
        seen.append((steps.prior(), steps.posterior(), index))
        steps.push(coder.latents(seen[-1][0], index))
    for prior, posterior, index in reversed(seen):
        coder.push_posterior(prior, posterior, index)


def _pixel_probabilities(steps: LatentSteps) -> np.ndarray:
    """Shapes: -> float32 (sub-pixels, levels). Raises: UnusableProbabilitiesError if one is not finite."""
    return probabilities_of(steps.log_pmf().flatten(0, -2))


def _grid_of(model: Model, images: Images) -> tuple[int, int]:
    """Bits of the coarsest grid that costs little enough for these images, and the number of latents of an image.

    Places d apart under a posterior of deviation s cost (d / s)^2 / 24 nats: what a draw loses by being rounded.
    """
    steps = _steps(model, len(images), images.to(model.device))
    total, num_latents = 0.0, 0
    for _ in range(steps.num_steps):
        prior = steps.prior()
        mean, log_std = torch.broadcast_tensors(*prior)
        posterior = steps.posterior()(mean.double())
        total += float(np.square(Normal.of((mean, log_std)).std / _stds(posterior, mean)).sum()) / len(images)
        num_latents += mean[0].numel()
        steps.push(posterior[0].double().expand(mean.shape))
    allowed = GRID_NATS_PER_SUBPIXEL * model.spec.num_subpixels
    bits = math.ceil(0.5 * math.log2(total / (24 * allowed)))
    return min(max(bits, COARSE_BITS), MAX_GRID_BITS), num_latents


def _stds(posterior: tuple[Tensor, Tensor], like: Tensor) -> np.ndarray:
    return Normal.of((posterior[0].expand(like.shape), posterior[1].expand(like.shape))).std
