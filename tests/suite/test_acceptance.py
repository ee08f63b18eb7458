"""Only results of the code and the numbers that are here are taken over, and only bit for bit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dvc.utils.hydra import apply_overrides

from dgm.config.params import PARAMS_FILE, load_params
from dgm.fingerprints import current_key, training_key
from dgm.runs.atomic import array_digest, write_array
from dgm.runs.checked import write_json
from dgm.runs.files import RunFiles
from dgm.runs.records import CurvePoint, Figures, Metrics, write_curve, write_record
from dgm.runs.weights import save_weights
from dgm.suite import packing, parts
from dgm.suite.acceptance import Arrival, overrides, read_arrival, write_arrival
from dgm.suite.packing import pack_suite
from dgm.suite.row import Row, log_file, read_row, row_file, write_row
from dgm.types import CIFAR10
from dgm.units import nats_to_bits_per_subpixel

ROOT = Path(__file__).parents[2]
CHANGES = {"training": {"max_seconds": 31.5}, "evaluation": {"num_draws": 1}}
FILES = RunFiles("gpu", "nice")


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project on another machine, in which a suite has finished two stages of one row."""
    for name in ("there", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / PARAMS_FILE).write_bytes((ROOT / PARAMS_FILE).read_bytes())
    monkeypatch.chdir(tmp_path / "there")
    params = load_params().changed("nice", "gpu", CHANGES)
    key, result_key = training_key(params, "nice", "gpu"), current_key(params, "nice", "gpu")
    save_weights(FILES.weights, {"weight": torch.rand(300, 300).bfloat16().float(), "bias": torch.rand(300)})
    write_curve(FILES.curve, [CurvePoint(0, 0, 0.0, None, 8.0)])
    row = Row("nice", "gpu", CHANGES, key, None, {}, {}, True).with_stage("train", 31.0)
    nats = np.full(10000, -4000.0)
    bits = float(-nats_to_bits_per_subpixel(torch.from_numpy(nats).mean(), CIFAR10))
    for split in ("test", "train"):
        write_array(FILES.nats(split), nats)
    write_record(
        FILES.metrics,
        Metrics("nice", "gpu", "dequantized", "lower_bound", bits, 0.01, None, bits, 0.01, None, {}, 10000, 10000, 1, 9,
                result_key, array_digest(nats)),
    )  # fmt: skip
    write_record(FILES.figures, Figures(bits, bits, 0.01, "dequantized"))
    write_row(replace(row, result_key=result_key).with_stage("evaluate", 2.0))
    log_file("gpu", "nice").write_text("trained\n")
    return tmp_path


def carried(there: Path, monkeypatch: pytest.MonkeyPatch, parts: int = 4) -> Arrival:
    """Packed there, read here."""
    pack_suite("gpu", there / "parts", 1, parts)
    monkeypatch.chdir(there / "here")
    return read_arrival(there / "parts", Path(".scratch"))


def test_a_row_comes_over_bit_for_bit_and_its_seconds_into_params(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrival = carried(there, monkeypatch)
    assert arrival.refused == [] and [row.stages for row in arrival.rows] == [("train", "evaluate")]
    assert not list(Path().rglob("*.safetensors"))
    write_arrival(arrival.rows)
    for path in (FILES.weights, FILES.curve, FILES.metrics, FILES.figures, FILES.nats("train")):
        assert path.read_bytes() == (there / "there" / path).read_bytes()
    assert log_file("gpu", "nice").read_text() == "trained\n"
    apply_overrides(PARAMS_FILE, overrides(arrival.rows))
    params = load_params()
    assert params.own_section("nice", "gpu", "training")["max_seconds"] == 31.5
    metrics = json.loads(FILES.metrics.read_text())
    assert metrics["code_and_params_key"] == current_key(params, "nice", "gpu")


def test_without_its_weights_a_row_has_its_figure_but_no_stage(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 2**18)
    arrival = carried(there, monkeypatch, parts=1)
    assert arrival.refused == [] and [row.stages for row in arrival.rows] == [("evaluate",)]


def test_a_failed_row_is_told_with_the_end_of_its_log(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_file("gpu", "vae")
    log.parent.mkdir(parents=True)
    log.write_text("Traceback (most recent call last):\n  ...\nZeroDivisionError: division by zero\n")
    arrival = carried(there, monkeypatch)
    assert len(arrival.rows) == 1
    assert arrival.refused == ["vae (gpu): has no results; its log ends: ZeroDivisionError: division by zero"]


REFUSED: dict[str, Callable[[Row], Row]] = {
    r"training key 0{16}, but the code and params.yaml here give": lambda row: replace(row, training_key="0" * 16),
    r"result key 0{16}, but the code": lambda row: replace(row, result_key="0" * 16),
    r"training key \w+, but the code": lambda row: replace(row, changes={"training": {"max_seconds": 30.0}}),
    r"row.json says it is of made \(gpu\)": lambda row: replace(row, model="made"),
    r"row.json changes other numbers of model": lambda row: replace(row, changes={"model": {"dropout": 0.5}}),
    r"row.json changes other numbers of training": lambda row: replace(
        row, changes={"training": {"max_seconds": 31.5, "learning_rate": 0.5}}
    ),
    r"training.max_seconds": lambda row: replace(row, changes={"training": {"max_seconds": "long"}}),
    r"row.json names files that are none of its stage train": lambda row: replace(
        row, files={**row.files, "train": {"params.yaml": "0" * 64}}
    ),
    r"weights.safetensors: has SHA-256": lambda row: replace(
        row, files={**row.files, "train": {row.weights: "0" * 64}}
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_row_that_is_not_right_is_refused_in_one_line(
    there: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    row = read_row("gpu", "nice")
    assert row is not None
    wrong = REFUSED[reason](row)
    write_json(row_file("gpu", "nice"), wrong)
    monkeypatch.setattr(packing, "read_row", lambda profile, model: row if model == "nice" else None)
    pack_suite("gpu", there / "parts", 1, 4)  # the files that are there, under the wrong row.json
    monkeypatch.chdir(there / "here")
    arrival = read_arrival(there / "parts", Path(".scratch"))
    assert arrival.rows == [] and len(arrival.refused) == 1
    assert re.search(reason, arrival.refused[0])
    assert arrival.refused[0].startswith("nice (gpu): refused: ") and "\n" not in arrival.refused[0]


def test_where_the_latest_is_of_other_code_the_one_that_is_right_is_taken(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_suite("gpu", there / "right", 1, 4)
    row = read_row("gpu", "nice")
    assert row is not None
    write_row(replace(row, training_key="0" * 16))
    pack_suite("gpu", there / "parts", 1, 4)
    (there / "right" / "results_01.zip").rename(there / "parts" / "results_99.zip")
    monkeypatch.chdir(there / "here")
    arrival = read_arrival(there / "parts", Path(".scratch"))
    assert arrival.refused == [] and [accepted.row for accepted in arrival.rows] == [row]
    assert arrival.rows[0].stages == ("train", "evaluate")


def test_records_are_checked_before_anything_is_written(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FILES.provenance.parent.mkdir(parents=True, exist_ok=True)
    FILES.provenance.write_text('{"model": "nice"}')
    row = read_row("gpu", "nice")
    assert row is not None
    write_row(row.with_stage("train", 31.0))
    arrival = carried(there, monkeypatch)
    assert arrival.rows == []
    assert re.fullmatch(r"nice \(gpu\): refused: reports/gpu/provenance/nice.json: profile: .*", arrival.refused[0])


def test_what_a_stage_has_not_left_is_not_there_afterwards_but_its_folder_is(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = read_row("gpu", "nice")
    assert row is not None
    FILES.compression.parent.mkdir(parents=True)
    FILES.compression.write_text("{}")  # a model that cannot be coded leaves no more
    write_row(row.with_stage("compress", 0.1))
    arrival = carried(there, monkeypatch)
    FILES.compressed.parent.mkdir(parents=True)
    FILES.compressed.write_bytes(b"of an earlier training")
    write_arrival(arrival.rows)
    assert FILES.compression.exists() and list(FILES.compressed.parent.iterdir()) == []
    assert arrival.rows[0].stages == ("train", "evaluate", "compress")
    FILES.compressed.parent.rmdir()
    write_arrival(arrival.rows)
    assert FILES.compressed.parent.is_dir()
