"""Damaged and crafted compressed files of both coders: one line that says what to do, or the right images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dgm.coding.codec import identity_of
from dgm.coding.coders import decode, encode
from dgm.coding.container import Compressed, read_compressed, write_compressed
from dgm.coding.folder import VERSION, compress_folder, decompress_folder
from dgm.coding.names import pack_names
from dgm.data.pictures import read_png, write_pngs
from dgm.errors import StageError
from dgm.model_api.contracts import Model
from dgm.types import ImageSpec
from tests.tiny import random_images, tiny_model

SPEC = ImageSpec(3, 4, 4, levels=256)
LARGEST = 2**32 - 1
REMEDY = "compress (the images|them) again|that `dgm compress` wrote|use the code|decompress (with those|there)"


@pytest.fixture(scope="module", params=["uniform", "vae"])  # exact, and by bits-back
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Model, bytes]:
    folder, model = tmp_path_factory.mktemp(request.param), tiny_model(request.param, SPEC)
    write_pngs([folder / "in" / "a.png", folder / "in" / "b.png"], random_images(SPEC, 2).numpy())
    compress_folder(model, request.param, "code", folder / "in", folder / "x.dgm")
    return request.param, model, (folder / "x.dgm").read_bytes()


def damaged(data: bytes) -> Iterator[bytes]:
    """Every length, every byte with its lowest or all bits flipped, and bytes behind the end."""
    yield from (data[:length] for length in range(len(data)))
    for position, mask in ((position, mask) for position in range(len(data)) for mask in (1, 255)):
        yield data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]
    yield from (data + extra for extra in (b"\0", b"\0\0\0\0", b"DGM", data))


def test_damage_anywhere_is_refused_with_a_remedy(written: tuple[str, Model, bytes], tmp_path: Path) -> None:
    name, model, data = written
    path, identity = tmp_path / "x.dgm", identity_of(model, name, f"code {VERSION}")
    for other in damaged(data):
        path.write_bytes(other)
        with pytest.raises(StageError, match=rf"^[^\n]*x\.dgm: [^\n]*({REMEDY})[^\n]*$"):
            read_compressed(path, identity, name)


def crafted(words: np.ndarray) -> Iterator[np.ndarray]:
    """Words that a coder might never have written."""
    random = np.random.default_rng(0)
    yield from (words[:length] for length in (0, 1, 2, 3, len(words) // 2, len(words) - 1))
    yield from (np.concatenate([words, np.full(count, value, np.uint32)]) for count, value in ((1, 7), (9, LARGEST)))
    yield from (np.full(len(words), value, np.uint32) for value in (0, 1, LARGEST))
    for first, second in ((first, second) for first in (0, 4, 15, 16, LARGEST) for second in (0, 1, LARGEST)):
        yield np.concatenate([np.array([first, second], np.uint32), words[2:]])
    for _ in range(20):
        other = words.copy()
        other[random.integers(len(words))] ^= np.uint32(1 << int(random.integers(32)))
        yield other
        yield np.concatenate([words[:2], random.integers(0, 2**32, len(words) - 2, np.uint32)])


def test_crafted_words_under_a_right_checksum_never_give_other_images(
    written: tuple[str, Model, bytes], tmp_path: Path
) -> None:
    """The last bits of the last word, or a word after it, may say nothing."""
    name, model, _ = written
    path, identity, images = tmp_path / "x.dgm", identity_of(model, name, f"code {VERSION}"), random_images(SPEC, 2)
    content, num_read = encode(model, images, identity), 0
    for number, words in enumerate(crafted(content.words)):
        named = np.concatenate([pack_names(["a.png", "b.png"]), words])
        write_compressed(path, replace(content, words=named))
        said, paths = "", list[Path]()
        try:
            paths = decompress_folder(model, name, "code", path, tmp_path / str(number))
        except StageError as error:
            said = str(error)
        if said:
            assert re.search(rf"^[^\n]*x\.dgm: [^\n]*({REMEDY})[^\n]*$", said), said
            assert not (tmp_path / str(number)).exists()
        else:
            assert np.array_equal([read_png(path, SPEC) for path in paths], images)
            num_read += 1
    assert num_read <= 2


def test_words_that_are_left_over_are_refused(written: tuple[str, Model, bytes]) -> None:
    _, model, _ = written
    content = encode(model, random_images(SPEC, 2), 0)
    with pytest.raises(StageError, match=REMEDY):
        decode(model, replace(content, words=np.concatenate([content.words, np.full(9, LARGEST, np.uint32)])))


@pytest.mark.parametrize("num_images", [0, 1, 3, LARGEST])
def test_a_lying_count_is_refused(written: tuple[str, Model, bytes], tmp_path: Path, num_images: int) -> None:
    name, model, _ = written
    content = encode(model, random_images(SPEC, 2), 5)
    write_compressed(tmp_path / "x.dgm", replace(content, num_images=num_images))
    with pytest.raises(StageError, match=REMEDY):
        decode(model, read_compressed(tmp_path / "x.dgm", 5, name))


@pytest.mark.parametrize("path", ["/dev/zero", "/", "/dev/null"])
def test_what_is_no_regular_file_is_not_read(path: str) -> None:
    with pytest.raises(StageError, match="not a regular file"):
        read_compressed(Path(path), 0, "uniform")


def test_numbers_below_the_normal_range_are_as_before_after_coding() -> None:
    model = tiny_model("uniform", SPEC)
    for is_flushing in (False, True):
        torch.set_flush_denormal(is_flushing)
        try:
            encode(model, random_images(SPEC, 1), 0)
            assert bool(torch.tensor(1e-40) * 1.0) != is_flushing
        finally:
            torch.set_flush_denormal(False)


def test_a_name_twice_is_not_written(tmp_path: Path) -> None:
    model, content = tiny_model("uniform", SPEC), Compressed(2, 0, 0, pack_names(["a.png", "a.png"]))
    identity = identity_of(model, "uniform", f"code {VERSION}")
    write_compressed(tmp_path / "x.dgm", replace(content, identity=identity))
    with pytest.raises(StageError, match=r"x\.dgm: the file name 'a\.png' is there twice; compress the images again"):
        decompress_folder(model, "uniform", "code", tmp_path / "x.dgm", tmp_path / "out")
