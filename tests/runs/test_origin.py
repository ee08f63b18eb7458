"""Weights and nats are read with the records that say where they are from; what is not theirs is refused in a line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dgm.errors import StageError
from dgm.runs.atomic import file_digest, write_array
from dgm.runs.files import RunFiles
from dgm.runs.nats import scored_nats
from dgm.runs.records import Metrics, Provenance, read_record, write_record
from dgm.runs.weights import load_trained, load_weights, save_weights
from dgm.types import ImageSpec
from tests.reporting.made_up import scored
from tests.untrained import sign

SPEC = ImageSpec(channels=1, height=1, width=2, levels=4)
NATS = np.array([-5.0, -7.0, -6.0, -5.5])


def trained(root: Path) -> RunFiles:
    files = RunFiles("cpu", "made", root)
    save_weights(files.weights, nn.Linear(3, 2).state_dict())
    sign(files, "key")
    return files


def change(files: RunFiles, **changes: Any) -> None:
    record = read_record(files.provenance, Provenance)
    assert record is not None
    write_record(files.provenance, replace(record, **changes))


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_weights_of_these_settings_are_loaded_and_their_digest_is_given(tmp_path: Path) -> None:
    files, model = trained(tmp_path), nn.Linear(3, 2)
    assert load_trained(files, model, "key") == file_digest(files.weights)
    save_weights(tmp_path / "again", model.state_dict())
    assert (tmp_path / "again").read_bytes() == files.weights.read_bytes()


REFUSED: Mapping[str, tuple[Callable[[RunFiles], object], str]] = {
    "other settings": (lambda files: change(files, training_key="old"), "with other settings or code .*key old, now"),
    "a flipped bit": (lambda files: flip(files.weights, -1), "not the weights that .*made.json is of"),
    "other bytes": (lambda files: change(files, weights_sha256="0" * 64), "not the weights that"),
    "an older record": (lambda files: change(files, training_key=None, weights_sha256=None), "does not say with which"),
    "no digest": (lambda files: change(files, weights_sha256=None), "does not say with which settings"),
    "no record": (lambda files: files.provenance.unlink(), "absent, so nothing says with which settings"),
    "another's record": (lambda files: change(files, model="nice"), r"says it is of nice \(cpu\), not of made"),
    "half a record": (lambda files: files.provenance.write_text("{"), "Invalid JSON"),
    "no weights": (lambda files: files.weights.unlink(), "no trained weights"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_are_not_known_to_be_of_these_settings_are_refused(tmp_path: Path, case: str) -> None:
    files = trained(tmp_path)
    damage, reason = REFUSED[case]
    damage(files)
    with pytest.raises(StageError, match=rf"^[^\n]*{reason}[^\n]*(stages\.train --model made|dvc repro)[^\n]*$"):
        load_trained(files, nn.Linear(3, 2), "key")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_tensor_that_is_not_finite_is_named(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    state: dict[str, Tensor] = {name: tensor.to(dtype) for name, tensor in nn.Linear(3, 2).state_dict().items()}
    state["bias"][1] = value
    save_weights(tmp_path / "w", state)
    with pytest.raises(StageError, match=r"^[^\n]*/w: bias has values that are not finite; delete it and train$"):
        load_weights(tmp_path / "w", nn.Linear(3, 2), "train")


def header(text: bytes, num_bytes: int | None = None) -> bytes:
    return (len(text) if num_bytes is None else num_bytes).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        header(b"{}", 2**63),
        header(b"{}", 10**9),
        header(b"[]"),
        header(b"null"),
        header(b"\xff\xfe"),
        header(b"[" * 3000),
        header(b'{"weight": 1}'),
        header(b'{"weight": {"dtype": "F4", "shape": [2, 3], "data_offsets": [0, 3]}}') + bytes(3),
        header(b'{"weight": {"dtype": "F32", "shape": [-2, 3], "data_offsets": [0, 24]}}') + bytes(24),
        header(b'{"weight": {"dtype": "F32", "shape": [18446744073709551615], "data_offsets": [0, 24]}}') + bytes(24),
        header(json.dumps({"weight": {"dtype": "I8", "shape": [6], "data_offsets": [0, 6]}}).encode()) + bytes(6),
    ],
)
def test_a_file_made_up_to_harm_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(StageError, match=r"^[^\n]{1,600}$"):
        load_weights(tmp_path / "w", nn.Linear(3, 2), "train")


def test_nats_of_these_metrics_come_back(tmp_path: Path) -> None:
    files = scored(tmp_path, "made", NATS, SPEC, weights_sha256="a" * 64)
    assert scored_nats(files, SPEC, "key", "a" * 64).tolist() == NATS.tolist()


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (NATS[::-1].copy(), "not the nats that the metrics"),
        (-NATS, "image 1 has a probability above 1"),
        (NATS - 1e-6, "not the nats that the metrics"),
        (NATS[:3], "not 4 finite numbers"),
        (np.array([-5.0, np.nan, -6.0, -5.5]), "not 4 finite numbers"),
        (np.array([-5.0, -np.inf, -6.0, -5.5]), "not 4 finite numbers"),
        (NATS.astype(np.float32), "not 4 finite numbers of type float64"),
        (NATS.reshape(2, 2), "not 4 finite numbers"),
        (np.array(["-5", "-7", "-6", "-5.5"]), "not 4 finite numbers"),
    ],
    ids=["reversed", "sign", "another model's", "fewer", "nan", "inf", "type", "shape", "text"],
)
def test_other_nats_are_refused(tmp_path: Path, damaged: np.ndarray, reason: str) -> None:
    files = scored(tmp_path, "made", NATS, SPEC)
    write_array(files.nats("test"), damaged)
    with pytest.raises(StageError, match=rf"^[^\n]*nats_test\.npy: {reason}[^\n]*dvc repro[^\n]*$"):
        scored_nats(files, SPEC, "key", "a" * 64)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"code_and_params_key": "old"}, r"scored with other settings or code .*key old, now key.*stages\.evaluate"),
        ({"weights_sha256": "b" * 64}, r"scored with other weights .*stages\.evaluate"),
        ({"test_nats_sha256": None}, "do not say which nats they are of"),
        ({"test_bits_per_subpixel": 3.0}, r"test_bits_per_subpixel is 3\.0.*the nats of its images give"),
        ({"test_standard_error": 0.1}, r"test_standard_error is 0\.1.*the nats of its images give"),
        ({"profile": "gpu"}, r"says it is of made \(gpu\)"),
    ],
)
def test_metrics_of_something_else_are_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    files = scored(tmp_path, "made", NATS, SPEC)
    metrics = read_record(files.metrics, Metrics)
    assert metrics is not None
    write_record(files.metrics, replace(metrics, **changes))
    with pytest.raises(StageError, match=rf"^[^\n]*{reason}[^\n]*$"):
        scored_nats(files, SPEC, "key", "a" * 64)
