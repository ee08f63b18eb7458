from __future__ import annotations

import errno
import os
import resource
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest

from dgm.data import arrays as arrays_module
from dgm.data.arrays import CifarArrays, DataError, load_arrays, remove_leftovers, save_arrays
from tests.data.fake_cifar import accept, fake_arrays


def blank(path: Path, shape: tuple[int, ...], dtype: str = "uint8") -> None:
    """A sparse file: takes no room on the disk."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape).flush()


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two files of a small stand-in, which the verification accepts."""
    arrays = fake_arrays()
    accept(monkeypatch, arrays)
    monkeypatch.setattr(arrays_module, "NUM_TRAIN_IMAGES", len(arrays.train))
    monkeypatch.setattr(arrays_module, "NUM_TEST_IMAGES", len(arrays.test))
    save_arrays(tmp_path / "data", arrays, tmp_path / "scratch")
    return tmp_path / "data"


def test_loads_both_arrays_mapped_and_read_only(saved: Path) -> None:
    arrays, expected = load_arrays(saved), fake_arrays()
    assert isinstance(arrays.train, np.memmap) and not arrays.train.flags.writeable
    np.testing.assert_array_equal(arrays.train, expected.train)
    np.testing.assert_array_equal(arrays.test, expected.test)


@pytest.mark.parametrize("name", ["train.npy", "test.npy"])
@pytest.mark.parametrize("position", [128, 5000, -1])
def test_one_flipped_bit_is_noticed(name: str, position: int, saved: Path) -> None:
    data = bytearray((saved / name).read_bytes())
    data[position] ^= 1
    (saved / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}: altered: .*SHA-256 .*; delete it and run `dvc repro download`"):
        load_arrays(saved)


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


def test_saves_both_and_nothing_else(tmp_path: Path) -> None:
    arrays = fake_arrays()
    for _ in range(2):  # the second time over files that are there
        save_arrays(tmp_path / "data", arrays, tmp_path / "scratch")
        np.testing.assert_array_equal(np.load(tmp_path / "data" / "train.npy"), arrays.train)
        np.testing.assert_array_equal(np.load(tmp_path / "data" / "test.npy"), arrays.test)
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["test.npy", "train.npy"]
        assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["download.lock"]


@pytest.mark.parametrize("file_name", ["train.npy", "test.npy"])
def test_a_kill_within_a_write_leaves_nothing_in_the_folder(file_name: str, tmp_path: Path) -> None:
    """The process ends itself by SIGKILL while it writes; the next run removes what it left in scratch."""
    folder, scratch = tmp_path / "data", tmp_path / "scratch"
    write = arrays_module.write_array

    def write_and_die(path: Path, array: np.ndarray) -> None:
        if path.name == file_name:
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / f".{path.name}.abc").write_bytes(bytes(1000))
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, array)

    child = os.fork()
    if child == 0:
        arrays_module.write_array = write_and_die
        save_arrays(folder, fake_arrays(), scratch)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert list(folder.iterdir()) == [] and list((scratch / "download").iterdir())
    remove_leftovers(folder, scratch)
    assert [path.name for path in scratch.iterdir()] == ["download.lock"]
    save_arrays(folder, fake_arrays(), scratch)


def test_files_of_a_killed_run_are_removed_and_others_are_kept(tmp_path: Path) -> None:
    folder, scratch = tmp_path / "data", tmp_path / "scratch"
    save_arrays(folder, fake_arrays(), scratch)
    for name in (".train.npy.a1b2", ".test.npy.c3"):
        (folder / name).write_bytes(b"half")
    (folder / ".download").mkdir()
    (folder / ".download" / "train.npy").write_bytes(b"half")
    (folder / "mine.txt").write_text("")
    remove_leftovers(folder, scratch)
    assert sorted(path.name for path in folder.iterdir()) == ["mine.txt", "test.npy", "train.npy"]


def test_without_leftovers_nothing_is_made(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "data", tmp_path / "scratch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit_bytes", [1000, 50000])
def test_a_disk_that_fills_up_leaves_neither_file(limit_bytes: int, tmp_path: Path) -> None:
    """The limit on the size of a file stops the kernel's writes as a full disk does: in either file."""
    small, large = fake_arrays().test, fake_arrays().train
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        with pytest.raises(OSError, match="nothing was written") as error:
            save_arrays(tmp_path / "data", CifarArrays(train=small, test=large), tmp_path / "scratch")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Path(error.value.filename).name == ("train.npy" if limit_bytes < small.nbytes else "test.npy")
    assert "None" not in str(error.value.strerror)
    assert list((tmp_path / "data").iterdir()) == []
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["download.lock"]


def test_a_read_only_folder_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated: whoever runs the tests may be root, whom no permission stops."""

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(OSError, match=r"Read-only file system: make the folder writable.*train\.npy"):
        save_arrays(tmp_path / "data", fake_arrays(), tmp_path / "scratch")
    assert list((tmp_path / "data").iterdir()) == []
