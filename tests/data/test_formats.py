from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgm.data import formats
from dgm.data.arrays import CifarArrays, DataError
from dgm.data.formats import read_archive, read_folder
from tests.data.fake_cifar import binary_files, fake_arrays, picture_files, write_folder, write_tar

Files = Callable[[CifarArrays], dict[str, bytes]]


@pytest.mark.parametrize("files", [binary_files, picture_files])
def test_each_form_gives_the_arrays_back(files: Files, tmp_path: Path) -> None:
    arrays = fake_arrays()
    from_archive = read_archive(write_tar(tmp_path / "archive", files(arrays)))
    from_folder = read_folder(write_folder(tmp_path / "folder", files(arrays)))
    for found in (from_archive, from_folder):
        assert found.train.flags.c_contiguous and found.test.flags.c_contiguous
        np.testing.assert_array_equal(found.train, arrays.train)
        np.testing.assert_array_equal(found.test, arrays.test)


def test_batches_are_ordered_by_number_not_by_place_in_the_archive(tmp_path: Path) -> None:
    arrays = fake_arrays()
    files = dict(reversed(binary_files(arrays).items()))
    np.testing.assert_array_equal(read_archive(write_tar(tmp_path / "archive", files)).train, arrays.train)


@pytest.mark.parametrize("files", [binary_files, picture_files])
def test_a_missing_batch_is_named_by_what_was_found(files: Files, tmp_path: Path) -> None:
    contents = files(fake_arrays())
    contents = {name: data for name, data in contents.items() if not name.startswith("data_batch_3")}
    with pytest.raises(DataError, match=r"folder: incomplete.*found data_batch_1\.\w+, data_batch_2"):
        read_folder(write_folder(tmp_path / "folder", contents))
    with pytest.raises(DataError, match=r"archive: incomplete.*found data_batch_1\.\w+, data_batch_2"):
        read_archive(write_tar(tmp_path / "archive", contents))


@pytest.mark.parametrize("files", [binary_files, picture_files])
def test_a_truncated_batch_is_named(files: Files, tmp_path: Path) -> None:
    contents = files(fake_arrays())
    name = sorted(contents)[1]
    contents[name] = contents[name][:-100]
    with pytest.raises(DataError, match=f"{name}: truncated or altered"):
        read_folder(write_folder(tmp_path / "folder", contents))


def test_an_empty_batch_is_refused(tmp_path: Path) -> None:
    contents = {**binary_files(fake_arrays()), "data_batch_2.bin": b""}
    with pytest.raises(DataError, match=r"data_batch_2.bin: truncated or altered"):
        read_folder(write_folder(tmp_path / "folder", contents))


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_a_truncated_archive_is_one_clear_line(kept: float, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "archive", binary_files(fake_arrays()))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(DataError, match=r"archive: not a whole .tar.gz, truncated or altered") as error:
        read_archive(path)
    assert "\n" not in str(error.value)


def failure_of(path: Path) -> str | None:
    """What a refused archive is refused with; an error of any other kind passes through."""
    try:
        read_archive(path)
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize("files", [binary_files, picture_files])
def test_an_altered_archive_fails_with_one_clear_line_if_at_all(files: Files, tmp_path: Path) -> None:
    """Changed pixels are for the hash to find; changed structure must not end in a traceback."""
    random = fake_arrays()
    compressible = CifarArrays(train=random.train // 64, test=random.test // 64)
    path = write_tar(tmp_path / "archive", files(compressible))
    whole = path.read_bytes()
    failures = []
    for position in [*range(16), *range(16, len(whole), len(whole) // 40), *range(len(whole) - 8, len(whole))]:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        failures.append(failure_of(path))
    refusals = [failure for failure in failures if failure is not None]
    assert refusals
    assert all("archive: " in refusal and "\n" not in refusal for refusal in refusals)


def test_an_archive_whose_own_check_fails_is_one_clear_line(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "archive", binary_files(fake_arrays()))
    without_padding = gzip.compress(gzip.decompress(path.read_bytes()).rstrip(b"\0"))
    path.write_bytes(without_padding[:-8] + bytes(4) + without_padding[-4:])
    with pytest.raises(DataError, match=r"archive: not a whole .*CRC check failed"):
        read_archive(path)


def test_a_picture_of_another_shape_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("L", (1024, 4)).save(file, "PNG")
    contents = {**picture_files(fake_arrays()), "test_batch.png": file.getvalue()}
    with pytest.raises(DataError, match=r"test_batch.png: .*is not RGB with 1024 pixels a row"):
        read_folder(write_folder(tmp_path / "folder", contents))


def test_a_batch_too_large_to_be_one_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_BATCH_BYTES", 1000)
    with pytest.raises(DataError, match=r"data_batch_1.bin is too large"):
        read_archive(write_tar(tmp_path / "archive", binary_files(fake_arrays())))


class _Trap:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return (pytest.fail, ("a pickle was opened",))


def test_the_pickled_version_is_refused_unopened(tmp_path: Path) -> None:
    files = {name.removesuffix(".bin"): pickle.dumps(_Trap()) for name in binary_files(fake_arrays())}
    with pytest.raises(DataError, match="the pickled Python version is not read"):
        read_archive(write_tar(tmp_path / "archive", files))


def test_members_are_never_written_to_where_their_path_points(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = write_tar(folder / "archive", binary_files(fake_arrays()), prefix="../")
    read_archive(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["inner"]
    assert [entry.name for entry in folder.iterdir()] == ["archive"]
