"""Run files -> rows: what is empty, what is stale, what is refused by name."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dgm.reporting.published import CATALOGUE
from dgm.reporting.results import RESULT_COLUMNS
from dgm.reporting.rows import Row, bound_terms, paired_differences, result_rows
from dgm.runs.atomic import write_array
from dgm.runs.records import CurvePoint, write_curve, write_record
from dgm.types import ImageSpec
from tests.reporting.made_up import BOUND, PROVENANCE, metrics, scored, whole_run

SPEC = ImageSpec(channels=1, height=1, width=2, levels=4)


def rows_by_model(root: Path, **keys: str) -> dict[str, Row]:
    return {row.model: row for row in result_rows("cpu", keys, root)}


def test_the_columns_cover_the_schema() -> None:
    agreed = (
        "model name family likelihood test_bits_per_subpixel test_standard_error train_bits_per_subpixel "
        "published_test published_train published_source parameters train_seconds images_seen device "
        "compressed_bits_per_subpixel mlflow_run_id git_commit is_current"
    )
    assert set(agreed.split()) <= set(RESULT_COLUMNS)


def test_without_run_files_every_row_is_there_and_empty(tmp_path: Path) -> None:
    rows = result_rows("cpu", {"nice": "key"}, tmp_path)
    assert [row.model for row in rows] == list(CATALOGUE)
    published = {
        "model",
        "name",
        "family",
        "published_test",
        "published_train",
        "published_source",
        "published_compute",
    }
    for row in rows:
        assert RESULT_COLUMNS["tier"](row) == "published only"
        others = set(RESULT_COLUMNS) - published - {"tier"}
        assert all(RESULT_COLUMNS[name](row) is None for name in others), row.model


def test_a_run_fills_its_row(tmp_path: Path) -> None:
    whole_run(tmp_path, "pixelcnn")
    row = rows_by_model(tmp_path, pixelcnn="key")["pixelcnn"]
    cells = {name: value(row) for name, value in RESULT_COLUMNS.items()}
    expected = {
        "likelihood": "exact",
        "test_bits_per_subpixel": 3.456789012345678,
        "parameters": 1234567,
        "device": "cpu",
        "train_seconds": 101.5,
        "images_seen": 64000,
        "images_per_second": 64000 / 101.5,
        "forward_flops_per_image": 4_000_000,
        "training_flops_per_image": 12_000_000,
        "training_flops": 768_000_000_000,
        "peak_memory_bytes": 2**30,
        "start_validation_bits_per_subpixel": 8.0,
        "final_validation_bits_per_subpixel": 5.1,
        "compressed_bits_per_subpixel": 3.46,
        "num_compressed_images": 100,
        "is_lossless": True,
        "mlflow_run_id": "run-id",
        "git_commit": "0123456789abcdef",
        "git_is_dirty": True,
        "published_test": 3.14,
        "published_train": 3.08,
        "is_current": True,
    }
    assert {name: cells[name] for name in expected} == expected
    assert row.faults == ()


def test_the_start_is_step_0_and_the_end_the_last_validation(tmp_path: Path) -> None:
    for model, curve in {
        "nice": [
            CurvePoint(0, 0, 0.0, None, 4.5),
            CurvePoint(5, 160, 0.1, 4.4, None),
            CurvePoint(10, 320, 0.1, 4.3, 4.4),
            CurvePoint(12, 384, 0.1, 4.3, None),
        ],
        "made": [CurvePoint(5, 160, 0.1, 4.4, 4.9)],
        "deep_gmm": [CurvePoint(1, 45000, None, 4.1, None)],
    }.items():
        write_curve(metrics(tmp_path, model).curve, curve)
    rows = rows_by_model(tmp_path)
    ends = [rows[model].validation_ends for model in ("nice", "made", "deep_gmm", "uniform")]
    assert ends == [(4.5, 4.4), (None, 4.9), (None, None), (None, None)]


def test_terms_keep_their_order(tmp_path: Path) -> None:
    terms = {"reconstruction": 3.25, "kl": 0.125}
    metrics(tmp_path, "vae", **BOUND, terms_bits_per_subpixel=terms, test_bits_per_subpixel=3.375)
    assert [
        (term.model, term.term, term.bits_per_subpixel) for term in bound_terms(result_rows("cpu", {}, tmp_path))
    ] == [
        ("vae", "reconstruction", 3.25),
        ("vae", "kl", 0.125),
    ]


@pytest.mark.parametrize(("keys", "is_current"), [({"made": "key"}, True), ({"made": "other"}, False), ({}, False)])
def test_a_result_of_other_code_or_parameters_is_stale(tmp_path: Path, keys: dict[str, str], is_current: bool) -> None:
    metrics(tmp_path, "made")
    assert rows_by_model(tmp_path, **keys)["made"].is_current is is_current


def test_a_model_outside_the_catalogue_is_shown_last(tmp_path: Path) -> None:
    metrics(tmp_path, "my_model")
    row = result_rows("cpu", {"my_model": "key"}, tmp_path)[-1]
    assert (row.model, row.published.name, row.published.published_test, row.is_current) == (
        "my_model",
        "my_model",
        None,
        True,
    )


def test_records_copied_from_another_model_are_refused(tmp_path: Path) -> None:
    files = whole_run(tmp_path, "nice")
    for path in (files.metrics, files.provenance, files.compression):
        path.rename(path.with_name("made.json"))
    row = rows_by_model(tmp_path)["made"]
    assert (row.metrics, row.provenance, row.compression) == (None, None, None)
    assert len(row.faults) == 3 and all("made.json: says it is of nice (cpu)" in fault for fault in row.faults)


@pytest.mark.parametrize(("kept", "last"), [(2, 1), (0, 0)])
def test_a_curve_that_ends_before_training_did_is_a_fault(tmp_path: Path, kept: int, last: int) -> None:
    """Cut off between two lines, the file itself looks whole."""
    path = whole_run(tmp_path, "nice").curve
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[: 1 + kept]), encoding="utf-8")
    row = rows_by_model(tmp_path)["nice"]
    assert row.curve == () and row.metrics is not None and row.provenance is not None
    assert [f"nice.csv: ends at step {last}, but training took 10 steps" in fault for fault in row.faults] == [True]


def test_a_model_fitted_in_one_step_has_an_empty_curve(tmp_path: Path) -> None:
    files = whole_run(tmp_path, "uniform")
    write_record(files.provenance, replace(PROVENANCE, model="uniform", num_steps=0))
    write_curve(files.curve, [])
    assert rows_by_model(tmp_path)["uniform"].faults == ()


def test_paired_differences_of_neighbours(tmp_path: Path) -> None:
    """Two sub-pixels: the bits are nats / (2 ln 2); the common spread of +-100 nats cancels."""
    spread = np.array([-100.0, 100.0, 0.0, 40.0]) - 500.0
    scored(tmp_path, "made", spread - 2.0, SPEC)
    scored(tmp_path, "nice", spread + np.array([0.0, 0.2, 0.0, 0.2]), SPEC)
    scored(tmp_path, "uniform", spread - 9.0, SPEC)
    metrics(tmp_path, "ride", test_bits_per_subpixel=355.0)  # no nats: not among the neighbours
    rows = result_rows("cpu", {}, tmp_path, spec=SPEC)
    first, second = paired_differences(rows, SPEC)
    assert (first.model_a, first.model_b, second.model_a, second.model_b) == ("nice", "made", "made", "uniform")
    assert first.difference_bits_per_subpixel == pytest.approx(2.1 / (2 * math.log(2)), rel=1e-12)
    deviation = math.sqrt(4 * 0.1**2 / 3)
    assert first.standard_error == pytest.approx(deviation / math.sqrt(4) / (2 * math.log(2)), rel=1e-9)
    assert second.standard_error == pytest.approx(0.0, abs=1e-12)
    assert second.num_images == 4 and not any(row.faults for row in rows)


def test_different_numbers_of_images_are_not_compared(tmp_path: Path) -> None:
    scored(tmp_path, "made", np.full(4, -5.0), SPEC)
    scored(tmp_path, "nice", np.full(5, -4.0), SPEC)
    (pair,) = paired_differences(result_rows("cpu", {}, tmp_path, spec=SPEC), SPEC)
    assert (pair.difference_bits_per_subpixel, pair.standard_error, pair.num_images) == (None, None, None)


NATS = np.array([-5.0, -7.0, -6.0, -5.5])


@pytest.mark.parametrize(
    "damaged",
    [
        NATS[::-1].copy(),
        -NATS,
        NATS - 1e-6,
        NATS[:3],
        np.array([-5.0, np.nan, -6.0, -5.5]),
        np.array([-5.0, -np.inf, -6.0, -5.5]),
        NATS.astype(np.float32),
        NATS.reshape(2, 2),
        None,
    ],
    ids=["reversed", "sign", "another model's", "fewer", "nan", "inf", "type", "shape", "no array"],
)
def test_nats_that_are_not_those_of_the_figure_are_left_out(tmp_path: Path, damaged: np.ndarray | None) -> None:
    scored(tmp_path, "made", NATS, SPEC)
    scored(tmp_path, "nice", NATS - 1.0, SPEC)
    path = scored(tmp_path, "vae", NATS - 2.0, SPEC).nats("test").with_name("nats_test.npy")
    assert path.exists()
    made = path.parents[2] / "made" / "nats" / "nats_test.npy"
    if damaged is None:
        made.write_bytes(b"nothing")
    else:
        write_array(made, damaged)
    rows = result_rows("cpu", {}, tmp_path, spec=SPEC)
    pairs = paired_differences(rows, SPEC)
    (faults,) = (row.faults for row in rows if row.faults)
    assert [(pair.model_a, pair.model_b) for pair in pairs] == [("nice", "vae")]
    assert len(faults) == 1 and "made/nats/nats_test.npy: " in faults[0] and "dvc repro" in faults[0]
