"""Run files -> rows: what is empty, what is stale, what is refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from dgm.errors import StageError
from dgm.reporting.published import CATALOGUE
from dgm.reporting.rows import RESULT_COLUMNS, ResultRow, bound_terms, paired_differences, result_rows
from dgm.runs.atomic import write_array, write_table
from dgm.runs.records import CURVE_COLUMNS
from dgm.types import ImageSpec
from tests.reporting.made_up import metrics, whole_run

SPEC = ImageSpec(channels=1, height=1, width=2, levels=4)


def rows_by_model(root: Path, **keys: str) -> dict[str, ResultRow]:
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
        assert all(getattr(row, column) is None for column in RESULT_COLUMNS if column not in published), row.model


def test_a_run_fills_its_row(tmp_path: Path) -> None:
    whole_run(tmp_path, "pixelcnn")
    row = rows_by_model(tmp_path, pixelcnn="key")["pixelcnn"]
    assert (row.likelihood, row.test_bits_per_subpixel, row.parameters) == ("exact", 3.456789012345678, 1234567)
    assert (row.device, row.train_seconds, row.images_seen) == ("cpu", 101.5, 64000)
    assert row.images_per_second == 64000 / 101.5
    assert (row.forward_flops_per_image, row.training_flops_per_image) == (4_000_000, 12_000_000)
    assert (row.training_flops, row.peak_memory_bytes) == (768_000_000_000, 2**30)
    assert (row.compressed_bits_per_subpixel, row.num_compressed_images, row.is_lossless) == (3.46, 100, True)
    assert (row.mlflow_run_id, row.git_commit, row.git_is_dirty) == ("run-id", "0123456789abcdef", True)
    assert (row.published_test, row.published_train) == (3.14, 3.08)


def test_the_start_is_step_0_and_the_end_the_last_validation(tmp_path: Path) -> None:
    for model, curve in {
        "nice": [(0, 0, 0.0, None, 4.5), (5, 160, 0.1, 4.4, None), (10, 320, 0.1, 4.3, 4.4), (12, 384, 0.1, 4.3, None)],
        "made": [(5, 160, 0.1, 4.4, 4.9)],
        "deep_gmm": [(1, 45000, None, 4.1, None)],
    }.items():
        write_table(metrics(tmp_path, model).curve, CURVE_COLUMNS, curve)
    rows = rows_by_model(tmp_path)
    ends = [
        (rows[model].start_validation_bits_per_subpixel, rows[model].final_validation_bits_per_subpixel)
        for model in ("nice", "made", "deep_gmm", "uniform")
    ]
    assert ends == [(4.5, 4.4), (None, 4.9), (None, None), (None, None)]


@pytest.mark.parametrize("bits", [math.nan, None, True, "3"])
def test_a_broken_term_is_named(tmp_path: Path, bits: object) -> None:
    path = metrics(tmp_path, "vae", terms_bits_per_subpixel={"kl": 0.125}).metrics
    rows = result_rows("cpu", {}, tmp_path)
    assert [(term.model, term.term, term.bits_per_subpixel) for term in bound_terms(rows, "cpu", tmp_path)] == [
        ("vae", "kl", 0.125)
    ]
    path.write_text(path.read_text().replace("0.125", json.dumps(bits)))
    with pytest.raises(StageError, match=r"metrics/vae\.json: kl is"):
        bound_terms(rows, "cpu", tmp_path)


@pytest.mark.parametrize(("keys", "is_current"), [({"made": "key"}, True), ({"made": "other"}, False), ({}, False)])
def test_a_result_of_other_code_or_parameters_is_stale(tmp_path: Path, keys: dict[str, str], is_current: bool) -> None:
    metrics(tmp_path, "made")
    assert rows_by_model(tmp_path, **keys)["made"].is_current is is_current


def test_a_model_outside_the_catalogue_is_shown_last(tmp_path: Path) -> None:
    metrics(tmp_path, "my_model")
    row = result_rows("cpu", {"my_model": "key"}, tmp_path)[-1]
    assert (row.model, row.name, row.published_test, row.is_current) == ("my_model", "my_model", None, True)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"model": "nice"}', b"\xff\xfe", b'{"model": "nice", "surplus": 1}']
)
def test_a_broken_metrics_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = metrics(tmp_path, "nice").metrics
    path.write_bytes(content)
    with pytest.raises(StageError, match=r"metrics/nice\.json"):
        result_rows("cpu", {}, tmp_path)


@pytest.mark.parametrize("value", ['"3.4"', "NaN", "Infinity", "null", "true"])
def test_a_figure_that_is_no_number_is_named(tmp_path: Path, value: str) -> None:
    path = metrics(tmp_path, "nice").metrics
    path.write_text(path.read_text().replace("3.456789012345678", value))
    with pytest.raises(StageError, match=r"metrics/nice\.json: test_bits_per_subpixel"):
        result_rows("cpu", {}, tmp_path)


def test_metrics_copied_from_another_model_are_refused(tmp_path: Path) -> None:
    path = metrics(tmp_path, "nice").metrics
    path.rename(path.with_name("made.json"))
    with pytest.raises(StageError, match=r"made\.json: says it is of nice"):
        result_rows("cpu", {}, tmp_path)


def test_paired_differences_of_neighbours(tmp_path: Path) -> None:
    """Two sub-pixels: the bits are nats / (2 ln 2); the common spread of +-100 nats cancels."""
    spread = np.array([-100.0, 100.0, 0.0, 40.0])
    for model, bits, nats in (
        ("made", 5.0, spread - 2.0),
        ("nice", 4.0, spread + np.array([0.0, 0.2, 0.0, 0.2])),
        ("uniform", 8.0, spread - 9.0),
    ):
        write_array(metrics(tmp_path, model, test_bits_per_subpixel=bits).nats("test"), nats)
    metrics(tmp_path, "ride", test_bits_per_subpixel=4.5)  # no nats: not among the neighbours
    first, second = paired_differences(result_rows("cpu", {}, tmp_path), "cpu", tmp_path, SPEC)
    assert (first.model_a, first.model_b, second.model_a, second.model_b) == ("nice", "made", "made", "uniform")
    assert first.difference_bits_per_subpixel == pytest.approx(2.1 / (2 * math.log(2)), rel=1e-12)
    deviation = math.sqrt(4 * 0.1**2 / 3)
    assert first.standard_error == pytest.approx(deviation / math.sqrt(4) / (2 * math.log(2)), rel=1e-9)
    assert second.standard_error == pytest.approx(0.0, abs=1e-12)
    assert second.num_images == 4


def test_different_numbers_of_images_are_not_compared(tmp_path: Path) -> None:
    write_array(metrics(tmp_path, "made", test_bits_per_subpixel=5.0).nats("test"), np.zeros(4))
    write_array(metrics(tmp_path, "nice").nats("test"), np.zeros(5))
    (pair,) = paired_differences(result_rows("cpu", {}, tmp_path), "cpu", tmp_path, SPEC)
    assert (pair.difference_bits_per_subpixel, pair.standard_error, pair.num_images) == (None, None, None)


def test_a_broken_array_of_nats_is_named(tmp_path: Path) -> None:
    metrics(tmp_path, "nice").nats("test").parent.mkdir(parents=True)
    metrics(tmp_path, "nice").nats("test").write_bytes(b"nothing")
    with pytest.raises(StageError, match=r"nats_test\.npy"):
        paired_differences(result_rows("cpu", {}, tmp_path), "cpu", tmp_path, SPEC)
