"""The coder loses nothing, takes what the model claims, and refuses what it cannot decode rightly."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dgm.coding.codec import compress, decompress, identity_of
from dgm.coding.container import HEADER, checksum, read_compressed, write_compressed
from dgm.config.parse import Config
from dgm.errors import StageError
from dgm.model_api.contracts import TrainedAutoregressiveModel
from dgm.types import ImageSpec

SPEC = ImageSpec(3, 8, 8, levels=16)


class NoConfig(Config):
    """Nothing to set."""


class Copycat(TrainedAutoregressiveModel):
    """The previous sub-pixel's value is likely again: a model with memory, small enough to reason about."""

    config_type = NoConfig
    is_leaking = False

    def __init__(self, spec: ImageSpec, config: NoConfig) -> None:
        super().__init__(spec, config)
        self.strength = torch.nn.Parameter(torch.tensor(3.0))

    def log_pmf(self, images: Tensor) -> Tensor:
        order = self.order()
        sequence = images.flatten(1).long()[:, order]
        shift = 0 if self.is_leaking else 1
        previous = torch.nn.functional.pad(sequence, (shift, 0))[:, : self.spec.num_subpixels]
        logits = self.strength * torch.nn.functional.one_hot(previous, self.spec.levels).double()
        by_subpixel = torch.empty_like(logits)
        by_subpixel[:, order] = logits.log_softmax(dim=-1)
        return by_subpixel.view(*images.shape, self.spec.levels)

    def log_prob(self, images: Tensor) -> Tensor:
        return self.log_pmf(images).gather(-1, images.long().unsqueeze(-1)).flatten(1).sum(dim=1)


@pytest.fixture
def model() -> Copycat:
    return Copycat(SPEC, NoConfig()).eval()


@pytest.fixture
def images(model: Copycat) -> Tensor:
    return model.sample(20, torch.Generator().manual_seed(0))


def test_images_survive_the_file(model: Copycat, images: Tensor, tmp_path: Path) -> None:
    identity = identity_of(model, "copycat", "code")
    path = tmp_path / "images.dgm"
    write_compressed(path, compress(model, images, identity))
    assert torch.equal(decompress(model, read_compressed(path, identity, "copycat")), images)


def test_the_file_is_as_long_as_the_model_claims(model: Copycat, images: Tensor) -> None:
    claimed_bits = -float(model.log_prob(images).detach().sum()) / math.log(2)
    compressed = compress(model, images, 0)
    payload_bits = 32 * len(compressed.words)
    assert compressed.num_bits == payload_bits + 8 * HEADER.size
    assert claimed_bits < payload_bits < claimed_bits * 1.002 + 64


def test_a_model_that_sees_the_future_is_caught(images: Tensor) -> None:
    leaking = Copycat(SPEC, NoConfig())
    leaking.is_leaking = True
    claimed_bits = -float(leaking.log_prob(images).detach().sum()) / math.log(2)
    compressed = compress(leaking, images, 0)
    assert 32 * len(compressed.words) > 1.5 * claimed_bits


@pytest.mark.parametrize("position", [0, 3, 5, 13, 21, 29, 40, -1])
def test_an_altered_byte_anywhere_is_refused(model: Copycat, images: Tensor, tmp_path: Path, position: int) -> None:
    path = tmp_path / "images.dgm"
    write_compressed(path, compress(model, images, 7))
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(StageError, match=r"images.dgm: (truncated or altered|not a compressed|format version)"):
        read_compressed(path, 7, "copycat")


def test_a_truncated_file_is_refused(model: Copycat, images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "images.dgm"
    write_compressed(path, compress(model, images, 7))
    for length in (0, 10, HEADER.size, HEADER.size + 8):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(StageError, match=r"images.dgm: (truncated|not a compressed)"):
            read_compressed(path, 7, "copycat")


def test_other_weights_another_name_or_code_are_refused(model: Copycat, images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "images.dgm"
    identity = identity_of(model, "copycat", "code")
    write_compressed(path, compress(model, images, identity))
    others = {identity_of(model, "other", "code"), identity_of(model, "copycat", "edited")}
    with torch.no_grad():
        model.strength.add_(1e-6)
    others.add(identity_of(model, "copycat", "code"))
    assert len(others | {identity}) == 4
    for other in others:
        with pytest.raises(StageError, match="another model, other weights or other code"):
            read_compressed(path, other, "copycat")


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    payload = np.zeros(2, dtype="<u4").tobytes()
    header = HEADER.pack(b"DGM", 9, 1, 0, 0, checksum(HEADER.pack(b"DGM", 9, 1, 0, 0, 0), payload))
    (tmp_path / "new.dgm").write_bytes(header + payload)
    with pytest.raises(StageError, match="format version 9"):
        read_compressed(tmp_path / "new.dgm", 0, "copycat")


def test_wrong_pixels_are_never_returned(model: Copycat, images: Tensor) -> None:
    compressed = compress(model, images, 0)
    with torch.no_grad():
        model.strength.add_(0.5)
    with pytest.raises(StageError, match="decoded pixels are not those"):
        decompress(model, compressed)


def test_both_directions_sum_in_one_order_whatever_the_caller_uses(
    model: Copycat, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, bool, bool, bool]] = []
    cudnn = torch.backends.cudnn
    log_pmf = Copycat.log_pmf

    def watched(self: Copycat, images: Tensor) -> Tensor:
        seen.append((torch.get_num_threads(), cudnn.enabled, cudnn.benchmark, cudnn.deterministic))
        return log_pmf(self, images)

    monkeypatch.setattr(Copycat, "log_pmf", watched)
    monkeypatch.setattr(cudnn, "benchmark", True)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        decompress(model, compress(model, images[:1], 0))
        assert set(seen) == {(1, True, False, True)}
        assert torch.get_num_threads() == 2 and cudnn.benchmark
    finally:
        torch.set_num_threads(before)


def test_words_that_no_probabilities_lead_to_are_refused(model: Copycat, images: Tensor) -> None:
    content = compress(model, images, 0)
    for words in (np.full_like(content.words, 0xFFFFFFFF), content.words[::-1].copy()):
        with pytest.raises(StageError, match="decompress there"):
            decompress(model, replace(content, words=words))


def test_probabilities_that_are_not_finite_are_refused_by_either_side(model: Copycat, images: Tensor) -> None:
    compressed = compress(model, images[:1], 1)
    model.strength.data.fill_(float("inf"))
    with pytest.raises(StageError, match="probabilities are not finite numbers: its weights are not usable; train"):
        compress(model, images, 1)
    with pytest.raises(StageError, match="not those that were compressed"):
        decompress(model, compressed)
