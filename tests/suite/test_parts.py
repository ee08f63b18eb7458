"""Parts have a bounded size, and what comes out of them is what went in, or is said to be missing."""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path

import pytest

from dgm.errors import StageError
from dgm.suite import parts
from dgm.suite.parts import Entry, pack, unpack

CONTENT = {f"file_{number}": random.Random(number).randbytes(number * 7000) for number in range(12)}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 64 * 1024)


def entries(content: dict[str, bytes]) -> list[Entry]:
    return [Entry(path, lambda data=data: data) for path, data in content.items()]


def latest(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    whole, cut = unpack(folder)
    return {path: versions[0] for path, versions in whole.items()}, cut


def test_parts_are_bounded_and_give_back_every_file(tmp_path: Path) -> None:
    written = pack(entries(CONTENT), tmp_path, 1, 1, 100)
    assert len(written) > 5 and [path.name for path in written[:2]] == ["results_01.zip", "results_02.zip"]
    assert all(path.stat().st_size <= 64 * 1024 for path in written)
    assert latest(tmp_path) == (CONTENT, [])


def test_the_first_parts_hold_the_first_files_and_later_calls_bring_the_rest(tmp_path: Path) -> None:
    pack(entries(CONTENT), tmp_path, 1, 1, 2)
    whole, cut = latest(tmp_path)
    assert list(whole) == list(CONTENT)[: len(whole)] and len(cut) <= 1
    later = tmp_path / "later"
    pack(entries(CONTENT), later, 2, 3, 100)
    assert not (later / "results_01.zip").exists()
    for path in later.iterdir():
        path.rename(tmp_path / path.name)
    whole, cut = latest(tmp_path)
    assert set(cut) | set(whole) == set(CONTENT)


def test_a_kill_between_two_parts_of_a_packing_costs_no_whole_file(tmp_path: Path) -> None:
    pack(entries(CONTENT), tmp_path, 1, 1, 100)
    later = {"new": b"row", **CONTENT, "file_3": b"written again"}
    pack(entries(later), tmp_path / "later", 2, 1, 1)
    (tmp_path / "later" / "results_01.zip").replace(tmp_path / "results_01.zip")
    whole, _ = latest(tmp_path)
    assert whole["new"] == b"row" and whole["file_3"] == b"written again" and whole["file_11"] == CONTENT["file_11"]


def test_parts_of_a_longer_packing_are_removed(tmp_path: Path) -> None:
    pack(entries(CONTENT), tmp_path, 1, 1, 100)
    pack(entries({"a": b"b"}), tmp_path, 2, 1, 100)
    assert [path.name for path in tmp_path.iterdir()] == ["results_01.zip"]


@pytest.mark.parametrize("at", [0, 3000, 30_000, -5])
def test_a_damaged_part_is_named_in_one_line(tmp_path: Path, at: int) -> None:
    path, *_ = pack(entries(CONTENT), tmp_path, 1, 1, 100)
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data if at >= 3000 else data[10 : len(data) // 2])
    with pytest.raises(StageError, match=rf"^{path}: damaged [^\n]*; bring it again$"):
        unpack(tmp_path)


def test_a_folder_without_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no part"):
        unpack(tmp_path)


def test_each_content_of_an_entry_is_there_once_the_latest_first(tmp_path: Path) -> None:
    for packing, data in ((1, b"old"), (2, b"new"), (3, b"new")):
        (path,) = pack(entries({"a": data}), tmp_path / str(packing), packing, 1, 1)
        path.rename(tmp_path / f"results_{packing}.zip")
    assert unpack(tmp_path) == ({"a": [b"new", b"old"]}, [])


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({"packing": 1, "pieces": [{"name": "a", "path": "a", "sha256": "0" * 64, "size": 1, "start": "b"}]}, "start"),
        ({"packing": 1, "pieces": [{"name": "a", "path": ["a"], "sha256": "0" * 64, "size": 1, "start": 0}]}, "path"),
        ({"packing": "x", "pieces": []}, "packing"),
        ({"files": []}, "packing"),
        ([], "should be"),
    ],
)
def test_a_zip_that_is_no_part_is_refused_in_one_line(tmp_path: Path, index: object, reason: str) -> None:
    with zipfile.ZipFile(tmp_path / "results_01.zip", "w") as archive:
        archive.writestr("index.json", json.dumps(index))
    with pytest.raises(StageError, match=rf"^{tmp_path}/results_01.zip: index.json: [^\n]*{reason}[^\n]*$"):
        unpack(tmp_path)
