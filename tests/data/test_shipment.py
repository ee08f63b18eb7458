"""CIFAR-10 in WebP pictures: read by what they hold, bit for bit, in parts of a bounded size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dgm.data import shipment
from dgm.data.arrays import DataError
from dgm.data.formats import decode, kind_of
from dgm.data.search import read_cifar
from dgm.data.shipment import encoded, of_pictures, pack_cifar
from tests.data.fake_cifar import accept, fake_arrays


@pytest.mark.parametrize("count", [100, 300])
def test_a_file_of_pictures_reads_back_bit_for_bit(count: int) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, 3, 32, 32), np.uint8)
    data = encoded(images)
    assert kind_of(data[:512], len(data)) == "webp"
    assert np.array_equal(decode("webp", data)[0].transpose(0, 3, 1, 2), images)


def test_both_parts_together_are_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = fake_arrays()
    accept(monkeypatch, arrays)
    monkeypatch.setattr(shipment, "SIDE", 2)
    lines: list[str] = []
    paths = pack_cifar(arrays, tmp_path, lines.append)
    assert [path.parent.name for path in paths] == ["part_1"] * 3 + ["part_2"] * 3 and len(lines) == 6
    found = read_cifar(tmp_path)
    assert np.array_equal(found.train, arrays.train) and np.array_equal(found.test, arrays.test)
    with pytest.raises(DataError, match=r"incomplete: data_batch_4, data_batch_5, test_batch not found"):
        read_cifar(tmp_path / "part_1")


def test_images_that_are_not_the_data_are_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = fake_arrays()
    accept(monkeypatch, arrays)
    monkeypatch.setattr(shipment, "SIDE", 2)
    arrays.train[0, 0, 0, 0] ^= 1
    with pytest.raises(DataError, match=r"part_1/data_batch_1.webp: the packed images are not data_batch_1"):
        pack_cifar(arrays, tmp_path, print)
    assert not list(tmp_path.rglob("*.webp"))


def test_a_part_that_would_be_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = fake_arrays()
    accept(monkeypatch, arrays)
    monkeypatch.setattr(shipment, "SIDE", 2)
    monkeypatch.setattr(shipment, "MAX_PART_BYTES", 20_000)
    with pytest.raises(DataError, match="part_1: would have more than 20000 bytes"):
        pack_cifar(arrays, tmp_path, print)


@pytest.mark.parametrize("size", [(64, 32), (33, 33)])
def test_a_picture_of_another_shape_is_refused(size: tuple[int, int]) -> None:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", size).save(file, format="WEBP", lossless=True)
    with pytest.raises(ValueError, match="is not an RGB square"):
        of_pictures(file.getvalue())


@pytest.mark.parametrize("cut", [4, 100, 60_000])
def test_a_file_that_was_cut_is_refused(cut: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 3, 32, 32), np.uint8)
    with pytest.raises((ValueError, OSError)):
        of_pictures(encoded(images)[:-cut])


def test_more_pictures_than_a_batch_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipment.verify, "IMAGES_PER_BATCH", 100)
    data = encoded(np.zeros((100, 3, 32, 32), np.uint8))
    assert len(of_pictures(data)) == 100
    with pytest.raises(ValueError, match="holds more than 100 images"):
        of_pictures(data + data)
