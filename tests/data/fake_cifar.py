"""A tiny stand-in for CIFAR-10 in each of its published forms."""

from __future__ import annotations

import io
import tarfile
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


def write_tar(path: Path, files: Mapping[str, bytes], prefix: str = "folder/") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path
