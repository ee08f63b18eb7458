"""All images in several files: what was proven before a kill stays, anything damaged or of other images is redone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from dgm.coding import coders, resumable
from dgm.coding.alone import Coder, Decoded
from dgm.coding.container import read_compressed
from dgm.coding.proof import Proven
from dgm.coding.resumable import all_sha256, prove_files
from dgm.model_api.contracts import AutoregressiveModel
from dgm.types import ImageSpec
from tests.tiny import random_images, tiny_model

SPEC = ImageSpec(3, 8, 8, levels=256)
IMAGES = random_images(SPEC, 290)
NATS = np.full(290, -192 * np.log(256))


@pytest.fixture(scope="module")
def coder() -> Coder:
    model = tiny_model("uniform", SPEC)
    assert isinstance(model, AutoregressiveModel)
    return Coder(model, "uniform", Path("weights"), "code")


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "IMAGES_IN_FILE", 100)


def proven_files(coder: Coder, folder: Path, images: Tensor = IMAGES, stop_after: int = 99) -> list[str]:
    """The names of the files that had to be decoded; stops, as by a kill, while the file after `stop_after` is."""
    decoded: list[str] = []

    def decode(coder: Coder, path: Path) -> Decoded:
        if len(decoded) == stop_after:
            raise KeyboardInterrupt
        decoded.append(path.name)
        return Decoded(coders.decode(coder.model, read_compressed(path, coder.identity, coder.name)), 0.5)

    try:
        found = list(prove_files(coder, images, NATS, folder, decode, lambda title: iter))
    except KeyboardInterrupt:
        return decoded
    paths, proven = [path for path, _ in found], [one for _, one in found]
    assert [path.name for path in paths] == ["001.dgm", "002.dgm", "003.dgm"]
    assert all(isinstance(one, Proven) and one.decode_core_seconds == 0.5 for one in proven)
    assert sum(one.file_bytes for one in proven) == sum(path.stat().st_size for path in paths)
    assert all_sha256(paths) == hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    return decoded


def test_a_kill_loses_one_file_at_most(coder: Coder, tmp_path: Path) -> None:
    assert proven_files(coder, tmp_path, stop_after=1) == ["001.dgm"]
    assert proven_files(coder, tmp_path) == ["002.dgm", "003.dgm"]
    assert proven_files(coder, tmp_path) == []


def cut_file(folder: Path) -> None:
    (folder / "002.dgm").write_bytes((folder / "002.dgm").read_bytes()[:-4])


def cut_record(folder: Path) -> None:
    (folder / "002.json").write_text('{"file_bytes": 1')


def other_figure(folder: Path) -> None:
    record = json.loads((folder / "002.json").read_text())
    (folder / "002.json").write_text(json.dumps(record | {"compressed_bits_per_subpixel": 7.9}))


def other_claim(folder: Path) -> None:
    record = json.loads((folder / "002.json").read_text())
    (folder / "002.json").write_text(json.dumps(record | {"claimed_bits_per_subpixel": 7.9}))


@pytest.mark.parametrize("damage", [cut_file, cut_record, other_figure, other_claim])
def test_what_is_damaged_is_proven_again(coder: Coder, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    proven_files(coder, tmp_path)
    damage(tmp_path)
    assert proven_files(coder, tmp_path) == ["002.dgm"]


def test_other_images_are_proven_again(coder: Coder, tmp_path: Path) -> None:
    proven_files(coder, tmp_path)
    others = IMAGES.clone()
    others[250, 0, 0, 0] ^= 1
    assert proven_files(coder, tmp_path, others) == ["003.dgm"]
