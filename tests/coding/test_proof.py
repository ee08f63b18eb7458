"""The proof accepts what the coder confirms, and a claim that is too high, too low or non-finite fails it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from dgm.coding.proof import prove
from dgm.errors import StageError
from dgm.model_api.contracts import AutoregressiveModel
from dgm.types import ImageSpec
from tests.tiny import random_images, tiny_model

SPEC = ImageSpec(3, 4, 4, levels=256)
RIGHT = -48 * math.log(256)  # natural-log probability of each image


@pytest.fixture(scope="module")
def model() -> AutoregressiveModel:
    model = tiny_model("uniform", SPEC)
    assert isinstance(model, AutoregressiveModel)
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return random_images(SPEC, 200)


def test_a_right_claim_is_confirmed_by_the_file(model: AutoregressiveModel, images: Tensor, tmp_path: Path) -> None:
    record = prove(model, images, np.full(200, RIGHT), tmp_path / "x.dgm", 1, "uniform", "smoke", iter)
    assert record.is_lossless and record.num_images == 200
    assert record.file_bytes is not None and record.file_bytes == (tmp_path / "x.dgm").stat().st_size
    assert record.claimed_bits_per_subpixel == pytest.approx(8.0)
    assert record.compressed_bits_per_subpixel == pytest.approx(8 * record.file_bytes / (200 * 48))


@pytest.mark.parametrize("claim", [RIGHT * 1.01, RIGHT * 0.99, 0.0, -RIGHT, math.nan, -math.inf, math.inf])
def test_a_wrong_claim_fails(model: AutoregressiveModel, images: Tensor, tmp_path: Path, claim: float) -> None:
    claims = np.full(200, claim)
    with pytest.raises(StageError, match=r"x\.dgm: 8\.\d+ bits per sub-pixel, but the model claims"):
        prove(model, images, claims, tmp_path / "x.dgm", 1, "uniform", "smoke", iter)


def test_claims_for_other_images_are_refused(model: AutoregressiveModel, images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"claims \(199,\) do not fit 200 images"):
        prove(model, images, np.full(199, RIGHT), tmp_path / "x.dgm", 1, "uniform", "smoke", iter)


def test_an_image_that_is_not_decoded_exactly_fails(
    model: AutoregressiveModel, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgm.coding.proof.decompress", lambda *_: images.flip(0))
    with pytest.raises(StageError, match="the decoded images differ"):
        prove(model, images, np.full(200, RIGHT), tmp_path / "x.dgm", 1, "uniform", "smoke", iter)
