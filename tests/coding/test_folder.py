"""Names beside the pixels: packed and read back as they are, and a crafted list of names ends in one line."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from dgm.coding.codec import compress, identity_of
from dgm.coding.container import HEADER, Compressed, checksum, write_compressed
from dgm.coding.folder import VERSION, compress_folder, decompress_folder
from dgm.coding.names import pack_names, unpack_names
from dgm.data.pictures import write_pngs
from dgm.errors import StageError
from dgm.model_api.contracts import AutoregressiveModel
from dgm.types import ImageSpec
from tests.tiny import random_images, tiny_model

SPEC = ImageSpec(3, 4, 4, levels=256)


@pytest.fixture(scope="module")
def model() -> AutoregressiveModel:
    model = tiny_model("uniform", SPEC)
    assert isinstance(model, AutoregressiveModel)
    return model


def words_of(data: bytes, length: int | None = None) -> np.ndarray:
    """The words of a list of names with these bytes, whatever they are."""
    padded = data + bytes(-len(data) % 4)
    first = np.array([len(data) if length is None else length], np.uint32)
    return np.concatenate([first, np.frombuffer(padded, "<u4").astype(np.uint32)])


@pytest.mark.parametrize("names", [["a.png"], ["A.PNG", "b c.png", "Übung.png", "noext", ".hidden", "日本.png"]])
def test_names_come_back(names: list[str]) -> None:
    tail = np.array([7, 8], np.uint32)
    read, rest = unpack_names(np.concatenate([pack_names(names), tail]), len(names))
    assert read == names and rest.tolist() == [7, 8]


LISTS = [
    (words_of(b""), "longer than the file"),
    (words_of(b'["a"]', 2**32 - 1), "longer than the file"),
    (words_of(b'["a"]', 9), "longer than the file"),
    (np.zeros(0, np.uint32), "longer than the file"),
    (words_of(b"["), "not readable JSON"),
    (words_of(b"\xff\xfe"), "not readable JSON"),
    (words_of(b"[" * 100_000), "not readable JSON"),
    (words_of(b"1" * 10_000), "not readable JSON"),
    (words_of(b"1"), "one name for each"),
    (words_of(b'{"a": 1, "b": 2}'), "one name for each"),
    (words_of(b'"ab"'), "one name for each"),
    (words_of(b'["a"]'), "one name for each"),
    (words_of(b'["a", 1]'), "something else than names"),
    (words_of(b'["a", null]'), "something else than names"),
    (words_of(b'["a", ["b"]]'), "something else than names"),
    *(
        (words_of(json.dumps(["a", name]).encode()), message)
        for name, message in (
            ("a", "is there twice"),
            ("A", "are one file on some systems"),
            ("../b", "is a path"),
            ("/etc/b", "is a path"),
            ("..\\b", "is a path"),
            ("c:b", "is a path"),
            ("..", "is a path"),
            (".", "is a path"),
            ("", "is a path"),
            (" ", "is a path"),
            ("b\0", "is a path"),
            ("b" * 241, "longer than 240 bytes"),
            ("ü" * 121, "longer than 240 bytes"),
            ("\ud800", "not valid Unicode"),
        )
    ),
]


@pytest.mark.parametrize(("words", "message"), LISTS)
def test_a_crafted_list_of_names_is_refused_before_anything_is_written(
    model: AutoregressiveModel, tmp_path: Path, words: np.ndarray, message: str
) -> None:
    identity = identity_of(model, "uniform", f"code {VERSION}")
    content = compress(model, random_images(SPEC, 2), identity)
    crafted = Compressed(2, identity, content.pixels_checksum, np.concatenate([words, content.words]))
    if message == "longer than the file":
        crafted = Compressed(2, identity, content.pixels_checksum, words)
    write_compressed(tmp_path / "x.dgm", crafted)
    with pytest.raises(StageError, match=rf"x\.dgm: .*{message}"):
        decompress_folder(model, "uniform", "code", tmp_path / "x.dgm", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("num_images", [0, 1, 3, 4_000_000_000])
def test_a_count_that_the_file_cannot_hold_is_refused_at_once(
    model: AutoregressiveModel, tmp_path: Path, num_images: int
) -> None:
    identity = identity_of(model, "uniform", f"code {VERSION}")
    content = compress(model, random_images(SPEC, 2), identity)
    words = np.concatenate([pack_names(["a", "b"]), content.words])
    write_compressed(tmp_path / "x.dgm", Compressed(num_images, identity, content.pixels_checksum, words))
    with pytest.raises(StageError, match=r"x\.dgm: (damaged|the list of names does not hold one name)"):
        decompress_folder(model, "uniform", "code", tmp_path / "x.dgm", tmp_path / "new")


def test_many_names_over_few_words_are_refused_before_they_are_decoded(
    model: AutoregressiveModel, tmp_path: Path
) -> None:
    identity = identity_of(model, "uniform", f"code {VERSION}")
    words = np.concatenate([pack_names([str(index) for index in range(70_000)]), np.zeros(1, np.uint32)])
    write_compressed(tmp_path / "x.dgm", Compressed(70_000, identity, 0, words))
    with pytest.raises(StageError, match=r"x\.dgm: 1 words are too few for 70000 images"):
        decompress_folder(model, "uniform", "code", tmp_path / "x.dgm", tmp_path / "new")


def test_a_part_of_a_word_at_the_end_is_refused(model: AutoregressiveModel, tmp_path: Path) -> None:
    identity, payload = identity_of(model, "uniform", f"code {VERSION}"), bytes(7)
    fields = struct.pack("<3sBIQQ", b"DGM", 1, 1, identity, 0)
    whole = checksum(fields + bytes(8), payload)
    (tmp_path / "x.dgm").write_bytes(fields + struct.pack("<Q", whole) + payload)
    assert HEADER.size == len(fields) + 8
    with pytest.raises(StageError, match=r"x\.dgm: damaged \(no images, or a part of a word"):
        decompress_folder(model, "uniform", "code", tmp_path / "x.dgm", tmp_path / "new")


def test_more_images_than_one_pass_takes_survive(
    model: AutoregressiveModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgm.coding.codec.MAX_IMAGES_AT_ONCE", 2)
    images = random_images(SPEC, 5).numpy()
    paths = [tmp_path / "in" / f"{index}.png" for index in range(5)]
    write_pngs(paths, images)
    compress_folder(model, "uniform", "code", tmp_path / "in", tmp_path / "x.dgm")
    decompress_folder(model, "uniform", "code", tmp_path / "x.dgm", tmp_path / "out")
    assert [(tmp_path / "out" / path.name).read_bytes() for path in paths] == [path.read_bytes() for path in paths]
