"""Every form that people have is accepted by its contents, whatever it is called; everything else is one clear line."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dgm.data import formats, search
from dgm.data.arrays import CifarArrays, DataError
from dgm.data.search import read_cifar
from tests.data.fake_cifar import (
    accept,
    binary_files,
    fake_arrays,
    npy,
    npz,
    pickle_files,
    picture_files,
    tar,
    write_folder,
    zipped,
)

Files = dict[str, bytes]


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> CifarArrays:
    found = fake_arrays()
    accept(monkeypatch, found)
    return found


def within(folder: str, files: Files) -> Files:
    return {f"{folder}/{name}": data for name, data in files.items()}


def nhwc(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 2, 3, 1)


def all_images(arrays: CifarArrays) -> np.ndarray:
    return np.concatenate([arrays.train, arrays.test])


BATCHES: dict[str, Callable[[CifarArrays], Files]] = {
    "binary": binary_files,
    "pictures": picture_files,
    "pickled by protocol 0": lambda arrays: pickle_files(arrays, 0),
    "pickled by protocol 1": lambda arrays: pickle_files(arrays, 1),
    "pickled by protocol 2": pickle_files,
    "pickled by protocol 5": lambda arrays: pickle_files(arrays, 5),
}
PACKED: dict[str, Callable[[Files], bytes]] = {
    "tar": tar,
    "tar.gz": lambda files: gzip.compress(tar(files)),
    "tar.bz2": lambda files: bz2.compress(tar(files)),
    "tar.xz": lambda files: lzma.compress(tar(files)),
    "zip": zipped,
    "zip of a tar.gz": lambda files: zipped({"cifar.tar.gz": gzip.compress(tar(files))}),
}
SINGLE: dict[str, Callable[[CifarArrays], bytes]] = {
    "npz, planes": lambda a: npz(a=a.train, b=a.test),
    "npz, pixels, with labels": lambda a: npz(
        y_test=np.arange(4), x_test=nhwc(a.test), x_train=nhwc(a.train), y_train=np.zeros((20, 1), np.uint8)
    ),
    "npz, rows of planes": lambda a: npz(one=a.test.reshape(-1, 3072), two=a.train.reshape(-1, 3072)),
    "npz, rows of pixels": lambda a: npz(one=nhwc(a.test).reshape(-1, 3072), two=nhwc(a.train).reshape(-1, 3072)),
    "npz, all in one": lambda a: npz(x=all_images(a)),
    "npz, test images first": lambda a: npz(x=np.concatenate([a.test, a.train])),
    "npz, Fortran's order": lambda a: npz(x=np.asfortranarray(all_images(a))),
    "npy, all in one": lambda a: npy(nhwc(all_images(a))),
    "compressed npy": lambda a: gzip.compress(npy(all_images(a))),
    "pickle, as keras returns it": lambda a: pickle.dumps(((nhwc(a.train), [1, 2]), (nhwc(a.test), np.arange(4)))),
    "all records in one": lambda a: b"".join(binary_files(a).values()),
}
FOLDERS: dict[str, Callable[[CifarArrays], Files]] = {
    "the parent": lambda a: within("cifar-10-batches-bin", binary_files(a)),
    "deep": lambda a: within("a/b/c/d/e", binary_files(a)),
    "torchvision's root": lambda a: {
        **within("cifar-10-batches-py", pickle_files(a)),
        "cifar-10-batches-py/batches.meta": pickle.dumps({"label_names": ["cat"]}, 2),
        "cifar-10-batches-py/readme.html": b"<html>",
        "cifar-10-python.tar.gz": gzip.compress(tar(pickle_files(a))),
    },
    "an archive under another name": lambda a: {"data.bak": gzip.compress(tar(binary_files(a))), "notes.txt": b"hi"},
    "keras' cache": lambda a: {"datasets/cifar-10-batches-py-target": gzip.compress(tar(pickle_files(a)))},
    "keras' unpacked cache": lambda a: within("cifar-10-batches-py-target/cifar-10-batches-py", pickle_files(a)),
    "this project's own": lambda a: {"train.npy": npy(a.train), "test.npy": npy(a.test)},
    "names in another case": lambda a: {name.upper(): data for name, data in binary_files(a).items()},
    "other names": lambda a: {f"{9 - i}.bin": data for i, data in enumerate(binary_files(a).values())},
    "an altered stray batch": lambda a: {**picture_files(a), "data_batch_1.bin": bytes(4 * 3073)},
    "a truncated stray batch": lambda a: {**picture_files(a), "data_batch_1.bin": bytes(100)},
    "a hostile pickle beside": lambda a: {**binary_files(a), "a.pkl": b"cos\nsystem\n(S'false'\ntR."},
    "half a form beside a whole archive": lambda a: {
        "a/data_batch_1.bin": binary_files(a)["data_batch_1.bin"][:-1],
        "b.tgz": gzip.compress(tar(picture_files(a)))[:-2000],
        "c.zip": zipped(picture_files(a)),
    },
}


def check_read(path: Path, arrays: CifarArrays) -> None:
    found = read_cifar(path)
    for images, expected in ((found.train, arrays.train), (found.test, arrays.test)):
        assert images.dtype == np.uint8 and images.flags.c_contiguous
        np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("form", BATCHES)
def test_batches_are_read_from_folders_and_from_every_archive(form: str, arrays: CifarArrays, tmp_path: Path) -> None:
    files = BATCHES[form](arrays)
    check_read(write_folder(tmp_path / "folder", files), arrays)
    for number, pack in enumerate(PACKED.values()):
        path = tmp_path / f"renamed{number}"
        path.write_bytes(pack(dict(reversed(files.items()))))
        check_read(path, arrays)


@pytest.mark.parametrize("form", SINGLE)
def test_one_file_may_hold_all(form: str, arrays: CifarArrays, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(SINGLE[form](arrays))
    check_read(path, arrays)
    check_read(tmp_path, arrays)


@pytest.mark.parametrize("form", FOLDERS)
def test_a_folder_is_searched(form: str, arrays: CifarArrays, tmp_path: Path) -> None:
    check_read(write_folder(tmp_path / "folder", FOLDERS[form](arrays)), arrays)


@pytest.mark.parametrize("name", ["train.npy", "test.npy"])
def test_one_of_the_projects_own_files_is_not_all(name: str, arrays: CifarArrays, tmp_path: Path) -> None:
    own = {"train.npy": npy(arrays.train), "test.npy": npy(arrays.test)}
    folder = write_folder(tmp_path / "folder", {name: own[name]})
    with pytest.raises(DataError, match=r"incomplete: .*batch.* not found"):
        read_cifar(folder / name)


@pytest.mark.parametrize("form", BATCHES)
def test_a_missing_or_altered_batch_is_named(form: str, arrays: CifarArrays, tmp_path: Path) -> None:
    files = BATCHES[form](arrays)
    changed = next(name for name in files if "3" in name)
    altered = BATCHES[form](CifarArrays(train=arrays.train ^ np.uint8(1), test=arrays.test))[changed]
    without = {name: data for name, data in files.items() if name != changed}
    for number, extra in enumerate([{}, {changed: altered}, {changed: files[changed][:-600]}, {changed: b""}]):
        folder = write_folder(tmp_path / str(number), without | extra)
        with pytest.raises(DataError, match=rf"{folder}: incomplete: data_batch_3 not found") as error:
            read_cifar(folder)
        assert "\n" not in str(error.value)
        assert (f"refused: {changed}: " in str(error.value)) == bool(extra)


NOTHING: dict[str, tuple[Files, str]] = {
    "an empty folder": ({}, "nothing that looks like it"),
    "other files": ({"a.txt": b"hello", "b/c.csv": b"1,2"}, "nothing that looks like it"),
    "other images": ({"x.npy": npy(np.zeros((4, 3, 32, 32), np.uint8))}, r"x.npy: .*images 0 to 3 have the SHA-256"),
    "another type": ({"x.npy": npy(np.zeros((4, 3, 32, 32)))}, "an array of float64"),
    "another shape": ({"x.npy": npy(np.zeros((4, 28, 28), np.uint8))}, r"x.npy: an array of uint8 \(4, 28, 28\)"),
    "another number": ({"x.npy": npy(np.zeros((5, 3, 32, 32), np.uint8))}, "5 images are not whole batches of 4"),
    "no images": ({"x.npy": npy(np.zeros((0, 3, 32, 32), np.uint8))}, "0 images are not whole batches"),
    "a hostile pickle": ({"x": b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00a\x85R."}, "x: .*os.system.*nothing of it was"),
    "an empty zip": ({"x": b"PK\x05\x06" + bytes(18)}, "nothing that looks like it"),
    "a broken npy": ({"x": b"\x93NUMPY\x01\x00"}, "x: not a whole npy file"),
    "a deep npy header": ({"x": b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10000}, "x: not a whole npy file"),
    "objects": ({"x": npy(np.zeros(3, "V8")).replace(b"'|V8'", b"'|O' ")}, "x: .*Python objects"),
    "a huge npy": (
        {"x": npy(np.zeros(1, "u1")).replace(b"(1,), }" + b" " * 10, b"(10000000000,), }")},
        "needs 10000000000 bytes",
    ),
}


@pytest.mark.parametrize("case", NOTHING)
def test_what_is_no_cifar10_is_told_with_the_reason(case: str, arrays: CifarArrays, tmp_path: Path) -> None:
    files, reason = NOTHING[case]
    folder = write_folder(tmp_path / "folder", files)
    with pytest.raises(DataError, match=rf"^{folder}: no CIFAR-10 in it.*{reason}") as error:
        read_cifar(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data", [b"", b"some text", b"\x00" * 1000, b"\x1f\x8b", b"PK\x03\x04", b"BZh9", b"\xfd7zXZ\x00"]
)
def test_a_single_file_of_another_kind_is_refused(data: bytes, arrays: CifarArrays, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"^{path}: no CIFAR-10 in it; refused: file: .*truncated or altered"):
        read_cifar(path)


def test_many_reasons_are_cut_short(arrays: CifarArrays, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", {f"{i:02}.npy": b"\x93NUMPY" + bytes(i) for i in range(30)})
    with pytest.raises(DataError, match=r"00.npy: .*07.npy: .*and 22 more files") as error:
        read_cifar(folder)
    assert len(str(error.value)) < 3000


def test_too_large_or_too_many_files_are_not_read(
    arrays: CifarArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "huge.npy").open("wb") as file:
        file.write(b"\x93NUMPY")
        file.truncate(formats.MAX_FILE_BYTES + 1)
    with pytest.raises(DataError, match=r"huge\.npy: too large"):
        read_cifar(tmp_path)
    monkeypatch.setattr(search, "MAX_FILES", 3)
    folder = write_folder(tmp_path / "folder", {str(number): b"" for number in range(4)} | binary_files(arrays))
    with pytest.raises(DataError, match="more than 3 files; name a folder nearer to the data"):
        read_cifar(folder)


def test_links_in_a_circle_and_broken_links_do_not_stop_the_search(arrays: CifarArrays, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", within("inner", binary_files(arrays)))
    (folder / "a").symlink_to(folder, target_is_directory=True)
    (folder / "b").symlink_to(folder / "b")
    (folder / "c").symlink_to("nowhere")
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "d")  # reading it would wait for ever
    check_read(tmp_path / "link", arrays)
    (folder / "inner" / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"test_batch not found; refused: b: Too many levels .*; c: No such file"):
        read_cifar(folder)


def test_what_may_not_be_read_costs_itself_only(
    arrays: CifarArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: whoever runs the tests may be root, whom no permission stops."""
    folder = write_folder(tmp_path / "folder", within("b", binary_files(arrays)) | {"a/x": b"", "c.npy": b""})
    listdir, open_file = os.listdir, Path.open

    def refuse_folder(path: Path) -> list[str]:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    def refuse_file(path: Path, mode: str) -> object:
        if path.name == "c.npy":
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, mode)

    monkeypatch.setattr(os, "listdir", refuse_folder)
    monkeypatch.setattr(Path, "open", refuse_file)
    check_read(folder, arrays)
    (folder / "b" / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"refused: c\.npy: Permission denied; a: Permission denied"):
        read_cifar(folder)


def test_members_are_never_written_to_where_their_path_points(arrays: CifarArrays, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "archive").write_bytes(tar(binary_files(arrays), prefix="../"))
    (folder / "archive2").write_bytes(zipped(binary_files(arrays), prefix="../"))
    check_read(folder / "archive", arrays)
    check_read(folder / "archive2", arrays)
    assert [entry.name for entry in tmp_path.iterdir()] == ["inner"]
    assert sorted(entry.name for entry in folder.iterdir()) == ["archive", "archive2"]
