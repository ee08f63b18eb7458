from __future__ import annotations

import errno
import os
import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest

from dgm.data.arrays import CifarArrays, DataError, load_arrays, save_arrays
from tests.data.fake_cifar import fake_arrays


def blank(path: Path, shape: tuple[int, ...], dtype: str = "uint8") -> None:
    """A sparse file: takes no room on the disk."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape).flush()


def test_loads_both_arrays_mapped_and_read_only(tmp_path: Path) -> None:
    blank(tmp_path / "train.npy", (50000, 3, 32, 32))
    blank(tmp_path / "test.npy", (10000, 3, 32, 32))
    arrays = load_arrays(tmp_path)
    assert isinstance(arrays.train, np.memmap) and not arrays.train.flags.writeable
    assert arrays.train.shape == (50000, 3, 32, 32) and arrays.test.shape == (10000, 3, 32, 32)


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.npy: missing; run `dvc repro download`"):
        load_arrays(tmp_path)
    blank(tmp_path / "train.npy", (50000, 3, 32, 32))
    with pytest.raises(DataError, match=r"test\.npy: missing"):
        load_arrays(tmp_path)


@pytest.mark.parametrize(("shape", "dtype"), [((10, 3, 32, 32), "uint8"), ((50000, 32, 32, 3), "uint8"), ((3,), "f8")])
def test_another_array_is_named_with_the_remedy(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    blank(tmp_path / "train.npy", shape, dtype)
    with pytest.raises(DataError, match=r"train\.npy: holds .* instead of uint8 .*dvc repro download"):
        load_arrays(tmp_path)


@pytest.mark.parametrize("contents", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_file_is_named_with_the_remedy(contents: bytes, tmp_path: Path) -> None:
    (tmp_path / "train.npy").write_bytes(contents)
    with pytest.raises(DataError, match=r"train\.npy: cannot be read .*dvc repro download"):
        load_arrays(tmp_path)


def test_a_pickled_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"train\.npy: cannot be read"):
        load_arrays(tmp_path)


def test_saves_both(tmp_path: Path) -> None:
    arrays = fake_arrays()
    save_arrays(tmp_path / "data", arrays)
    np.testing.assert_array_equal(np.load(tmp_path / "data" / "train.npy"), arrays.train)
    np.testing.assert_array_equal(np.load(tmp_path / "data" / "test.npy"), arrays.test)


@pytest.mark.parametrize("limit_bytes", [1000, 50000])
def test_a_disk_that_fills_up_leaves_neither_file(limit_bytes: int, tmp_path: Path) -> None:
    """The limit on the size of a file stops the kernel's writes as a full disk does: in either file."""
    small, large = fake_arrays().test, fake_arrays().train
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        with pytest.raises(OSError, match="nothing was written") as error:
            save_arrays(tmp_path, CifarArrays(train=small, test=large))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Path(error.value.filename).name == ("train.npy" if limit_bytes < small.nbytes else "test.npy")
    assert "None" not in str(error.value.strerror)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated: whoever runs the tests may be root, whom no permission stops."""

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(OSError, match=r"Read-only file system: make the folder writable.*train\.npy"):
        save_arrays(tmp_path, fake_arrays())
    assert list(tmp_path.iterdir()) == []
