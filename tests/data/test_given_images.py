"""Images in any form that a user has: what is clear is taken as it is meant, everything else is named."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dgm.data.given_images import given_images
from dgm.data.pictures import write_pngs
from dgm.errors import StageError
from dgm.types import CIFAR10, ImageSpec

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32)).astype(np.uint8)
LAST = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    "value",
    [
        IMAGES,
        LAST,
        torch.from_numpy(IMAGES),
        torch.from_numpy(LAST),
        IMAGES[::-1][::-1],
        np.broadcast_to(IMAGES, IMAGES.shape),  # read-only
        LAST.transpose(0, 3, 1, 2),  # not contiguous
    ],
)
def test_arrays_and_tensors_in_either_order_of_axes_are_the_same_images(value: np.ndarray | torch.Tensor) -> None:
    given = given_images(value, CIFAR10)
    assert np.array_equal(given.images.numpy(), IMAGES) and given.images.is_contiguous()
    assert given.names == ["0", "1", "2", "3"]


def test_files_and_folders_are_the_same_images(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    np.savez(tmp_path / "one.npz", anything=LAST)
    np.savez_compressed(tmp_path / "two.npz", labels=np.zeros(4), images=IMAGES)
    (tmp_path / "no_suffix").write_bytes((tmp_path / "a.npy").read_bytes())
    write_pngs([tmp_path / "folder" / f"{index}.png" for index in range(4)], IMAGES)
    for name in ("a.npy", "one.npz", "two.npz", "no_suffix", "folder"):
        assert np.array_equal(given_images(tmp_path / name, CIFAR10).images.numpy(), IMAGES), name
    one = given_images(str(tmp_path / "folder" / "2.png"), CIFAR10)
    assert np.array_equal(one.images.numpy(), IMAGES[2:3]) and one.names == ["2.png"]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (
            LAST.astype(np.float32),
            r"numpy array float32 \(4, 32, 32, 3\), expected uint8 \(N, 3, 32, 32\); give the grey",
        ),
        (IMAGES.astype(np.int64), r"numpy array int64 \(4, 3, 32, 32\), expected"),
        (torch.from_numpy(IMAGES).float(), r"torch tensor float32 \(4, 3, 32, 32\), expected"),
        (torch.from_numpy(IMAGES).to_sparse(), r"sparse_coo torch tensor uint8"),
        (torch.empty(4, 3, 32, 32, dtype=torch.uint8, device="meta"), r"meta torch tensor uint8"),
        (IMAGES[0], r"numpy array uint8 \(3, 32, 32\), expected .*; for one image add the first axis"),
        (LAST[0], r"numpy array uint8 \(32, 32, 3\), expected .*; for one image add the first axis"),
        (IMAGES[:, :1], r"numpy array uint8 \(4, 1, 32, 32\), expected"),
        (IMAGES[..., :31], r"numpy array uint8 \(4, 3, 32, 31\), expected"),
        (np.zeros((), np.uint8), r"numpy array uint8 \(\), expected"),
        (np.ma.masked_array(IMAGES, IMAGES > 5), r"masked numpy array uint8"),
        (IMAGES[:0], r"numpy array uint8 \(0, 3, 32, 32\): there is no image in it"),
        (torch.from_numpy(LAST[:0]), r"torch tensor uint8 \(0, 32, 32, 3\): there is no image in it"),
        ([1, 2], r"list, expected uint8 .*, as a numpy array or torch tensor, or the path"),
        (None, r"NoneType, expected"),
        (b"a.png", r"bytes, expected"),
    ],
)
def test_what_came_is_said_beside_what_was_expected(value: object, found: str) -> None:
    with pytest.raises(StageError, match=f"^{found}"):
        given_images(value, CIFAR10)  # type: ignore[arg-type]


def test_an_order_of_axes_that_cannot_be_known_and_levels_that_are_none_are_refused() -> None:
    with pytest.raises(StageError, match="channels first and channels last both fit"):
        given_images(np.zeros((2, 3, 3, 3), np.uint8), ImageSpec(3, 3, 3, 256))
    with pytest.raises(StageError, match="holds 4, the levels are 0 to 3"):
        given_images(np.full((2, 3, 4, 4), 4, np.uint8), ImageSpec(3, 4, 4, 4))


def hostile_npz() -> bytes:
    """One member whose header promises 2^40 images."""
    header = io.BytesIO()
    shape = (2**40, 3, 32, 32)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(100))
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a folder of PNG files nor a PNG"),
        (b"GIF89a...", "neither a folder of PNG files nor a PNG"),
        (npy(IMAGES)[:1000], "damaged, or not a plain numpy file"),
        (npy(np.array([{}], dtype=object)), "damaged, or not a plain numpy file"),
        (b"PK\3\4" + bytes(50), "damaged, or not a plain numpy file"),
        (hostile_npz(), "damaged, or not a plain numpy file"),
        (b"\x93NUMPY\1\0\x76\0" + b"(" * 118, "damaged, or not a plain numpy file"),
        (npy(np.zeros(3, np.uint8)), r"numpy array uint8 \(3,\), expected"),
        (b"\x89PNG\r\n\x1a\n" + bytes(5), "not an 8-bit RGB PNG"),
    ],
)
def test_a_file_that_is_no_images_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(StageError, match=f"^{tmp_path / 'file'}: {message}"):
        given_images(tmp_path / "file", CIFAR10)


def test_an_npz_of_several_arrays_names_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", train=IMAGES, test=IMAGES)
    with pytest.raises(
        StageError, match=r"x\.npz: must hold one array, or one under the key images; it holds train, test"
    ):
        given_images(tmp_path / "x.npz", CIFAR10)


@pytest.mark.parametrize("name", ["absent", "a\0b", "x" * 300])
def test_a_path_that_leads_nowhere_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(StageError, match="cannot be read"):
        given_images(tmp_path / name, CIFAR10)
