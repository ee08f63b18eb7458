"""Damaged and crafted archives: the arrays or one clear line, within limits."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from dgm.data import archives, search
from dgm.data.arrays import CifarArrays, DataError
from dgm.data.search import read_cifar
from tests.data.fake_cifar import accept, binary_files, fake_arrays, tar, zipped
from tests.data.test_search import BATCHES, PACKED, check_read


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> CifarArrays:
    found = fake_arrays()
    accept(monkeypatch, found)
    return found


@pytest.mark.parametrize("pack", PACKED)
@pytest.mark.parametrize("form", ["binary", "pictures", "pickled by protocol 2"])
def test_a_damaged_archive_gives_the_arrays_or_one_clear_line(
    pack: str, form: str, arrays: CifarArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = CifarArrays(train=arrays.train // 64, test=arrays.test // 64)  # small when compressed
    accept(monkeypatch, plain)
    whole = PACKED[pack](BATCHES[form](plain))
    path = tmp_path / "archive"
    positions = [*range(0, 16, 3), *range(16, len(whole), len(whole) // 8 + 1), len(whole) - 5]
    damaged = [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in positions]
    refusals: list[str] = []
    for data in [*damaged, *(whole[:at] for at in positions)]:
        path.write_bytes(data)
        refusals += refusal(path, plain)
    assert len(refusals) > len(positions) // 2
    assert all(text.startswith(f"{path}: ") and "\n" not in text for text in refusals)


def refusal(path: Path, arrays: CifarArrays) -> list[str]:
    """Why the path is refused, if it does not give the arrays; an error of any other kind passes through."""
    try:
        check_read(path, arrays)
    except DataError as error:
        return [str(error)]
    return []


LIMITS = [(archives, "MAX_FILE_BYTES", 20_000), (archives, "MAX_ARCHIVE_BYTES", 40_000), (archives, "MAX_MEMBERS", 3)]


@pytest.mark.parametrize("pack", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
@pytest.mark.parametrize(("module", "name", "limit"), LIMITS)
def test_an_archive_that_unpacks_to_too_much_is_refused(
    pack: str,
    module: object,
    name: str,
    limit: int,
    arrays: CifarArrays,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, name, limit)
    files = {f"{number}": bytes(12_288) for number in range(8)}
    path = tmp_path / "bomb"
    path.write_bytes(PACKED[pack](files if name != "MAX_FILE_BYTES" else {"0": bytes(100_000)}))
    with pytest.raises(DataError, match=r"no CIFAR-10 in it; refused: bomb: .*refused, .*(more than|has a part)"):
        read_cifar(path)


def test_archives_within_archives_have_a_limit(arrays: CifarArrays, tmp_path: Path) -> None:
    data = tar(binary_files(arrays))
    for _ in range(search.MAX_ARCHIVE_DEPTH):
        data = gzip.compress(data)
    path = tmp_path / "file"
    path.write_bytes(zipped({"inner": data}))
    with pytest.raises(DataError, match="archives within each other"):
        read_cifar(path)
