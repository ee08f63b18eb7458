"""A tiny stand-in for CIFAR-10 in each of its published forms."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgm.data import verify
from dgm.data.arrays import CifarArrays

IMAGES_A_BATCH = 4


def fake_arrays() -> CifarArrays:
    """Five batches of training images and one of test images, of four images each."""
    images = np.random.default_rng(0).integers(0, 256, (6 * IMAGES_A_BATCH, 3, 32, 32), np.uint8)
    return CifarArrays(train=images[:-IMAGES_A_BATCH], test=images[-IMAGES_A_BATCH:])


def accept(monkeypatch: pytest.MonkeyPatch, arrays: CifarArrays) -> None:
    """Makes the verification expect `arrays`."""
    monkeypatch.setattr(verify, "TRAIN_SHA256", verify.sha256_of_array(arrays.train))
    monkeypatch.setattr(verify, "TEST_SHA256", verify.sha256_of_array(arrays.test))
    hashes = {name: verify.sha256_of_array(images) for name, images in batches(arrays).items()}
    monkeypatch.setattr(verify, "BATCH_SHA256", hashes)
    monkeypatch.setattr(verify, "IMAGES_PER_BATCH", len(arrays.test))


def batches(arrays: CifarArrays) -> dict[str, np.ndarray]:
    parts = np.split(arrays.train, 5)
    return {**{f"data_batch_{number + 1}": part for number, part in enumerate(parts)}, "test_batch": arrays.test}


def binary_files(arrays: CifarArrays) -> dict[str, bytes]:
    """The official records, one byte of label (7) and then the planes: red, green, blue."""
    return {
        f"{name}.bin": b"".join(b"\x07" + image.tobytes() for image in images)
        for name, images in batches(arrays).items()
    }


def picture_files(arrays: CifarArrays) -> dict[str, bytes]:
    """Pictures with one image a row, pixel by pixel."""
    files = {}
    for name, images in batches(arrays).items():
        rows = np.stack([np.moveaxis(image, 0, -1).reshape(1024, 3) for image in images])
        file = io.BytesIO()
        Image.fromarray(rows).save(file, "PNG")
        files[f"{name}.png"] = file.getvalue()
    return files


def pickle_files(arrays: CifarArrays, protocol: int = 2) -> dict[str, bytes]:
    """The official Python version: a dictionary with planes of each image in one row."""
    return {
        name: pickle.dumps(
            {b"batch_label": b"", b"labels": [7] * len(images), b"data": images.reshape(-1, 3072)}, protocol
        )
        for name, images in batches(arrays).items()
    }


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def tar(files: Mapping[str, bytes], prefix: str = "folder/") -> bytes:
    """Not compressed."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def zipped(files: Mapping[str, bytes], prefix: str = "folder/") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(prefix + name, data)
    return file.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes], prefix: str = "folder/") -> Path:
    path.write_bytes(gzip.compress(tar(files, prefix)))
    return path


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    path.mkdir()
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path
