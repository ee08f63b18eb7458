"""The proof accepts what the coder confirms, and a claim that is too high, too low or non-finite fails it."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from dgm.coding.alone import Coder, Decoded
from dgm.coding.coders import decode
from dgm.coding.container import read_compressed
from dgm.coding.proof import prove
from dgm.errors import StageError
from dgm.model_api.contracts import AutoregressiveModel
from dgm.types import ImageSpec
from tests.tiny import random_images, tiny_model

SPEC = ImageSpec(3, 4, 4, levels=256)
RIGHT = -48 * math.log(256)  # natural-log probability of each image


@pytest.fixture(scope="module")
def coder() -> Coder:
    model = tiny_model("uniform", SPEC)
    assert isinstance(model, AutoregressiveModel)
    return Coder(model, "uniform", Path("weights"), "code")


def decode_here(coder: Coder, path: Path) -> Decoded:
    """In this process: test_alone.py has the other one."""
    return Decoded(decode(coder.model, read_compressed(path, coder.identity, coder.name)), 0.5)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return random_images(SPEC, 200)


def test_a_right_claim_is_confirmed_by_the_file(coder: Coder, images: Tensor, tmp_path: Path) -> None:
    proven = prove(coder, images, np.full(200, RIGHT), tmp_path / "x.dgm", decode_here)
    assert proven.file_bytes == (tmp_path / "x.dgm").stat().st_size
    assert proven.claimed_bits_per_subpixel == pytest.approx(8.0)
    assert proven.compressed_bits_per_subpixel == pytest.approx(8 * proven.file_bytes / (200 * 48))
    assert proven.decoded_sha256 == hashlib.sha256(images.numpy().tobytes()).hexdigest()
    assert proven.encode_core_seconds > 0 and proven.decode_core_seconds == 0.5


@pytest.mark.parametrize("claim", [RIGHT * 1.01, RIGHT * 0.99, 0.0, -RIGHT, math.nan, -math.inf, math.inf])
def test_a_wrong_claim_fails(coder: Coder, images: Tensor, tmp_path: Path, claim: float) -> None:
    with pytest.raises(StageError, match=r"x\.dgm: 8\.\d+ bits per sub-pixel, but the model claims"):
        prove(coder, images, np.full(200, claim), tmp_path / "x.dgm", decode_here)


def test_claims_for_other_images_are_refused(coder: Coder, images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"claims \(199,\) do not fit 200 images"):
        prove(coder, images, np.full(199, RIGHT), tmp_path / "x.dgm", decode_here)


@pytest.mark.parametrize("wrong", [lambda images: images.flip(0), lambda images: images[:-1]])
def test_an_image_that_is_not_decoded_exactly_fails(coder: Coder, images: Tensor, tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(StageError, match="the decoded images differ"):
        prove(coder, images, np.full(200, RIGHT), tmp_path / "x.dgm", lambda *_: Decoded(wrong(images), 0.5))
