"""python -m stages.codecs: one line a codec, over as many images as params.yaml says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import stages.codecs
from dgm.coding.reference import codecs
from dgm.data.arrays import CifarArrays
from dgm.runs.files import reference_codecs_file
from dgm.runs.records import read_reference_codecs

PARAMS = Path("params.yaml").resolve()


def test_every_codec_gets_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 99, (20, 3, 32, 32)).astype(np.uint8)
    monkeypatch.setattr(stages.codecs, "load_arrays", lambda folder: CifarArrays(train=images, test=images))
    monkeypatch.setattr(sys, "argv", ["codecs", "--profile", "smoke"])
    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes())
    monkeypatch.chdir(tmp_path)
    stages.codecs.main()
    records = read_reference_codecs(reference_codecs_file("smoke"))
    assert [(record.codec, record.num_images) for record in records] == [(codec.name, 16) for codec in codecs()]
