"""General codecs: every one of them lossless, whole files counted, and a codec that alters a pixel is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dgm.coding.reference import Codec, codecs, join, measure
from dgm.config.parse import ConfigError, parse
from dgm.config.sections import CodecsConfig
from dgm.errors import StageError

NAMES = [codec.name for codec in codecs()]


def smooth_images(count: int) -> np.ndarray:
    """uint8 (N, 3, 32, 32): gradients with noise, other ones in each image and channel."""
    generator = np.random.default_rng(0)
    slopes = generator.uniform(-3, 3, (count, 3, 2, 1, 1))
    ramp = np.arange(32) - 16
    images = 128 + slopes[:, :, 0] * ramp[:, None] + slopes[:, :, 1] * ramp + generator.normal(0, 2, (count, 3, 32, 32))
    return images.clip(0, 255).astype(np.uint8)


def raw(**changes: object) -> Codec:
    """Stores the bytes behind one byte of header."""
    codec = Codec(
        "raw",
        "none",
        "package 1",
        "library 2",
        lambda picture: b"R" + picture.tobytes(),
        lambda data, shape: np.frombuffer(data[1:], np.uint8).reshape(shape),
    )
    return replace(codec, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("codec", codecs(), ids=NAMES)
def test_every_codec_reads_back_what_it_wrote(codec: Codec) -> None:
    record = measure(codec, smooth_images(4))
    assert 1.0 < record.joined_bits_per_subpixel < 8.2 and 1.0 < record.file_bits_per_subpixel < 8.2
    noise = np.random.default_rng(1).integers(0, 256, (4, 3, 32, 32)).astype(np.uint8)
    assert measure(codec, noise).file_bits_per_subpixel > 8  # noise cannot be compressed: nothing was left out


def test_whole_files_are_counted() -> None:
    record = measure(raw(), smooth_images(9))
    assert record.file_bits_per_subpixel == pytest.approx(8 * 3073 / 3072)
    assert record.joined_bits_per_subpixel == pytest.approx(8 * (9 * 3072 + 1) / (9 * 3072))
    assert record.num_images == 9


def test_a_changed_pixel_is_refused() -> None:
    def alter(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        picture = np.frombuffer(data[1:], np.uint8).reshape(shape).copy()
        picture[-1, -1, -1] ^= picture.shape[0] == 64
        return picture

    with pytest.raises(StageError, match=r"raw \(none\): the joined picture does not come back"):
        measure(raw(decode=alter), smooth_images(4))
    with pytest.raises(StageError, match="test image 0 does not come back"):
        measure(raw(encode=lambda picture: b"R" + (picture ^ 1).tobytes()), smooth_images(4))


def test_the_joined_picture_has_every_image_once_in_rows() -> None:
    pictures = smooth_images(4).transpose(0, 2, 3, 1)
    joined = join(pictures)
    assert joined.shape == (64, 64, 3)
    np.testing.assert_array_equal(joined[:32, 32:], pictures[1])
    np.testing.assert_array_equal(joined[32:, :32], pictures[2])


def test_the_number_of_images_is_a_square() -> None:
    assert parse(CodecsConfig, {"num_images": 16}, "codecs").num_images == 16
    with pytest.raises(ConfigError, match=r"codecs\.num_images.*must be a square number \(such as 9\)"):
        parse(CodecsConfig, {"num_images": 15}, "codecs")
