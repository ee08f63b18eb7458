"""Units, seeds, dequantization, run files: what everything else stands on."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dgm.dequantization import dequantize, quantize
from dgm.errors import StageError
from dgm.runs.atomic import atomic_file, write_array
from dgm.runs.files import RunFiles
from dgm.runs.records import Compression, read_record, write_record
from dgm.seeds import Stream, derived_seed, generator_for, seed_global
from dgm.types import CIFAR10, ImageSpec
from dgm.units import bits_per_subpixel_to_nats, nats_to_bits_per_subpixel


def test_eight_bits_are_the_nats_of_a_uniform_image() -> None:
    nats = CIFAR10.num_subpixels * math.log(256)
    assert nats_to_bits_per_subpixel(nats, CIFAR10) == pytest.approx(8.0, abs=1e-12)
    assert bits_per_subpixel_to_nats(8.0, CIFAR10) == pytest.approx(nats, rel=1e-15)
    assert nats_to_bits_per_subpixel(np.array([nats, 0.0]), CIFAR10)[1] == 0.0


def test_image_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="levels"):
        ImageSpec(3, 2, 2, levels=1)
    with pytest.raises(ValueError, match="at least 1"):
        ImageSpec(0, 2, 2, levels=2)


def test_a_seed_depends_on_every_position_and_nothing_else() -> None:
    seeds = {derived_seed(s, a, b) for s in range(3) for a in range(1, 4) for b in range(1, 4)}
    assert len(seeds) == 27
    assert derived_seed(1, 2, 3) == derived_seed(1, 2, 3)
    drawn = torch.rand(3, generator=generator_for(1, Stream.STEP, 5))
    torch.rand(100)
    assert torch.equal(drawn, torch.rand(3, generator=generator_for(1, Stream.STEP, 5)))
    seed_global(1, 2)
    first = torch.rand(1)
    seed_global(1, 2)
    assert torch.equal(first, torch.rand(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dequantized_pixels_stay_in_their_cell(dtype: torch.dtype) -> None:
    images = torch.full((64, 3, 32, 32), 255, dtype=torch.uint8)
    x = dequantize(images, generator_for(0), dtype)
    assert x.dtype == dtype
    assert float(x.min()) >= 255.0
    assert float(x.max()) < 256.0
    assert float(x.double().mean()) == pytest.approx(255.5, abs=0.005)
    assert torch.equal(quantize(x, CIFAR10), images)


def test_float32_noise_never_rounds_out_of_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_args, **_keywords: torch.full((1, 3, 2, 2), 1 - 1e-12).double())
    x = dequantize(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8), generator_for(0))
    assert float(x.max()) < 256.0


def test_quantize_clamps_to_the_alphabet() -> None:
    assert quantize(torch.tensor([-3.0, 0.99, 300.0]), CIFAR10).tolist() == [0, 0, 255]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "result.npy"
    write_array(path, np.arange(3.0))

    def write_half() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as caught:
        write_half()
    assert caught.value.filename == str(path)
    assert np.load(path).tolist() == [0.0, 1.0, 2.0]
    assert os.listdir(path.parent) == ["result.npy"]


def test_records_read_back_and_broken_ones_are_named(tmp_path: Path) -> None:
    files = RunFiles("cpu", "made", tmp_path)
    record = Compression("made", "cpu", 4.5, 4.49, 2, 3456, True, "decoded")
    assert read_record(files.compression, Compression) is None
    write_record(files.compression, record)
    assert read_record(files.compression, Compression) == record
    assert json.loads(files.compression.read_text())["compressed_bits_per_subpixel"] == 4.5
    files.compression.write_text('{"model": "made"}')
    with pytest.raises(StageError, match=r"compression/made.json: "):
        read_record(files.compression, Compression)
