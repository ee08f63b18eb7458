"""A bound as a file: decoded exactly, as long as the bound says, and no fault of encoder, decoder or claim passes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dgm.coding.alone import Coder, Decoded
from dgm.coding.bits_back import compress_by_bits_back, decompress_by_bits_back, num_initial_bits
from dgm.coding.bound_proof import one_draw_bounds, prove_bound
from dgm.coding.container import Compressed, read_compressed
from dgm.coding.latent_coder import LatentCoder
from dgm.coding.proof import Proven
from dgm.data.verify import sha256_of_array
from dgm.errors import StageError
from dgm.model_api.contracts import GradientTrained, LatentVariableModel
from dgm.model_api.latent_steps import Gaussian, LatentSteps, Posterior
from dgm.models.vae.model import VAE, VAESteps
from dgm.seeds import generator_for
from dgm.types import ImageSpec
from tests.tiny import untrained_model

SPEC = ImageSpec(channels=3, height=8, width=8, levels=16)
CODED = ("conv_draw", "draw", "vae", "vae_iaf")
NUM_IMAGES = 24


def smooth_images(count: int, seed: int) -> Tensor:
    """Random colours, each with a slope from left to right, and noise."""
    generator = generator_for(seed)
    colour, slope = (torch.rand(count, 3, 1, 1, generator=generator) for _ in range(2))
    x = 12 * colour + 4 * (slope - 0.5) * torch.linspace(-1, 1, SPEC.width) + 2
    return (x + torch.randn(count, *SPEC.shape, generator=generator)).clamp(0, 15).to(torch.uint8)


def model_of(name: str, seed: int = 0) -> LatentVariableModel:
    """As after a few steps of training: at its linear start, but with random weights that do something."""
    model = untrained_model(name, SPEC, seed)
    assert isinstance(model, LatentVariableModel) and isinstance(model, GradientTrained)
    model.prepare(smooth_images(500, seed=1), generator_for(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape))
    return model.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return smooth_images(NUM_IMAGES, seed=9)


@pytest.fixture(scope="module")
def vae() -> VAE:
    model = model_of("vae")
    assert isinstance(model, VAE)
    return model


@pytest.fixture(scope="module")
def coded(vae: VAE, images: Tensor) -> Compressed:
    return compress_by_bits_back(vae, images, 7)


def rate_of(compressed: Compressed) -> float:
    """Nats per image, without the initial bits, the two words of the header and the one that seals the stack."""
    bits = 32 * (len(compressed.words) - 3) - num_initial_bits(compressed)
    return bits * math.log(2) / compressed.num_images


@pytest.mark.parametrize("name", CODED)
def test_images_come_back_from_a_file_as_long_as_the_bound(name: str, images: Tensor) -> None:
    model = model_of(name)
    compressed = compress_by_bits_back(model, images, 7)
    assert torch.equal(decompress_by_bits_back(model, compressed), images)
    with torch.no_grad():
        draws = torch.stack([model.log_weights(images, generator_for(0, draw)) for draw in range(20)])
    noise = float(draws.mean(dim=1).std())  # of one draw's mean over these images
    bound = -float(draws.mean())
    assert noise < 0.01 * bound
    assert abs(rate_of(compressed) - bound) < 3 * noise + 0.001 * bound + 32 * math.log(2) / NUM_IMAGES
    assert 0 < num_initial_bits(compressed) < 64 * 200


class WideSteps(VAESteps):
    """A posterior that is twice as wide as the one that the bound is computed with."""

    def posterior(self) -> Posterior:
        mean, log_std = super().posterior()(self.z)
        return lambda z: (mean, log_std + math.log(2.0))


class WrongPrior(VAESteps):
    """A prior that is not the one that the bound is computed with."""

    def prior(self) -> Gaussian:
        mean, log_std = super().prior()
        return mean, log_std + 1.0


def with_steps(kind: type[VAESteps], monkeypatch: pytest.MonkeyPatch) -> None:
    def latent_steps(self: VAE, num_images: int, images: Tensor | None = None) -> LatentSteps:
        return kind(self, num_images, images)

    monkeypatch.setattr(VAE, "latent_steps", latent_steps)


@pytest.mark.parametrize("kind", [WideSteps, WrongPrior])
def test_a_decoder_with_another_distribution_is_caught(
    vae: VAE, coded: Compressed, monkeypatch: pytest.MonkeyPatch, kind: type[VAESteps]
) -> None:
    with_steps(kind, monkeypatch)
    with pytest.raises(StageError, match=r"^(the decoded pixels are not those|the model's latents are not finite)"):
        decompress_by_bits_back(vae, coded)


def decode_here(coder: Coder, path: Path) -> Decoded:
    """In this process, where the tests have planted their faults; test_alone.py decodes in another one."""
    return Decoded(decompress_by_bits_back(coder.model, read_compressed(path, coder.identity, coder.name)), 0.5)


def prove(model: LatentVariableModel, images: Tensor, path: Path) -> Proven:
    return prove_bound(Coder(model, "vae", path.with_name("none"), "code"), images, path, decode_here, seed=0)


def test_a_right_bound_is_confirmed_with_its_initial_bits_apart(vae: VAE, images: Tensor, tmp_path: Path) -> None:
    record = prove(vae, images, tmp_path / "x.dgm")
    assert record.decoded_sha256 == sha256_of_array(images.numpy())
    assert record.file_bytes == (tmp_path / "x.dgm").stat().st_size
    bits = 8 * record.file_bytes - record.initial_bits
    assert record.compressed_bits_per_subpixel == pytest.approx(bits / images.numel())
    assert record.claimed_bits_per_subpixel == one_draw_bounds(vae, images, 0)["one importance weight"]


def half_kl(terms: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {key: term if key == "reconstruction" else 0.5 * term for key, term in terms.items()}


@pytest.mark.parametrize("fault", ["half KL", "prior scale forgotten", "not a number"])
def test_a_bound_that_no_file_has_the_length_of_fails(
    vae: VAE, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    terms, weights = VAE.bound_terms, VAE.log_weights
    if fault == "half KL":
        monkeypatch.setattr(VAE, "bound_terms", lambda *arguments: half_kl(terms(*arguments)))
    elif fault == "prior scale forgotten":
        monkeypatch.setattr(VAE, "log_weights", lambda *arguments: weights(*arguments) + 24 * math.log(2.0))
    else:
        monkeypatch.setattr(VAE, "log_weights", lambda *arguments: weights(*arguments) * math.nan)
    with pytest.raises(StageError, match=r"x\.dgm: \d\.\d+ bits per sub-pixel, but|is not finite|is nan"):
        prove(vae, images, tmp_path / "x.dgm")


@pytest.mark.parametrize("kind", [WideSteps, WrongPrior])
def test_steps_that_are_not_those_of_the_bound_fail(
    vae: VAE, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[VAESteps]
) -> None:
    with_steps(kind, monkeypatch)
    with pytest.raises(StageError, match=r"x\.dgm: \d\.\d+ bits per sub-pixel, but"):
        prove(vae, images, tmp_path / "x.dgm")


def altered(words: np.ndarray, position: int, value: int) -> np.ndarray:
    words = words.copy()
    words[position] = value
    return words


@pytest.mark.parametrize(
    "words_of",
    [
        lambda words: words[:0],
        lambda words: words[:2],
        lambda words: words[:-1],
        lambda words: words[:10],
        lambda words: words[:40],
        lambda words: altered(words, 0, 3),
        lambda words: altered(words, 0, 2**32 - 1),
        lambda words: altered(words, 0, int(words[0]) + 1),
        lambda words: altered(words, 1, 2**32 - 1),
        lambda words: altered(words, 1, int(words[1]) - 1),
        lambda words: altered(words, 2, int(words[2]) ^ 1),
        lambda words: altered(words, -1, 0),
        lambda words: altered(words, -300, int(words[-300]) ^ 1),
        lambda words: np.full_like(words, 5),
        lambda words: np.concatenate([words[:2], np.full(len(words) - 2, 2**32 - 1, np.uint32)]),
    ],
)
def test_words_that_nobody_wrote_end_in_one_line(vae: VAE, coded: Compressed, words_of: Any) -> None:
    with pytest.raises(StageError, match=r"^[^\n]+$"):
        decompress_by_bits_back(vae, replace(coded, words=words_of(coded.words)))


def test_initial_bits_that_are_not_the_agreed_ones_are_refused(vae: VAE, coded: Compressed) -> None:
    """Nothing can hide in what the rate leaves out."""
    claimed = replace(coded, words=altered(coded.words, 1, int(coded.words[1]) + 60))
    assert num_initial_bits(claimed) > num_initial_bits(coded)
    with pytest.raises(StageError, match="decoded pixels are not those"):
        decompress_by_bits_back(vae, claimed)


def test_more_images_or_other_pixels_than_were_written_are_refused(vae: VAE, coded: Compressed) -> None:
    for change in ({"num_images": 10**9}, {"num_images": NUM_IMAGES - 1}, {"pixels_checksum": 1}):
        with pytest.raises(StageError, match="decoded pixels are not those"):
            decompress_by_bits_back(vae, replace(coded, **change))


def test_other_weights_are_refused(vae: VAE, coded: Compressed) -> None:
    other = model_of("vae", seed=1)
    with pytest.raises(StageError):
        decompress_by_bits_back(other, coded)


def test_the_noise_of_an_image_is_not_the_latents_of_the_one_before(
    vae: VAE, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stack gives back what was put there last: without the mixing, the draws would not be the posterior's."""
    seen, settle = list[np.ndarray](), LatentCoder._settle  # pyright: ignore[reportPrivateUsage]

    def watched(self: LatentCoder, prior: Gaussian, normal: Any, posterior: Posterior, noise: np.ndarray) -> np.ndarray:
        index = settle(self, prior, normal, posterior, noise)
        seen.append(np.stack([self.noises.position(noise), self.places.position(index)]))
        return index

    monkeypatch.setattr(LatentCoder, "_settle", watched)
    compress_by_bits_back(vae, images, 7)
    noise, latents = np.stack(seen[1:])[:, 0].ravel(), np.stack(seen[:-1])[:, 1].ravel()
    limit = 4 / len(noise) ** 0.5  # four standard errors
    assert limit < 0.5
    assert abs(np.corrcoef(noise, latents)[0, 1]) < limit
    assert abs(noise.mean()) < limit and abs(noise.std() - 1) < limit
