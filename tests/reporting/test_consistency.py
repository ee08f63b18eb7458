"""What another file of a run, its nats or the settings contradict is left out of the report, and marked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dgm.errors import StageError
from dgm.reporting.consistency import Expected, ExpectedTables, check_codecs, check_rungs
from dgm.reporting.files import make_report
from dgm.reporting.results import shown_name
from dgm.reporting.rows import Row, result_rows
from dgm.reporting.tables import latex, make_table, markdown
from dgm.runs.files import RunFiles
from dgm.runs.records import (
    Compression,
    Figures,
    Metrics,
    Provenance,
    ReferenceCodec,
    Rung,
    read_record,
    write_record,
)
from tests.reporting.made_up import METRICS, whole_run
from tests.reporting.test_tables import COLUMNS

EXPECTED = Expected("training", "exact", METRICS.parameters, 10000, 10000, 1)
FIGURES = Figures(METRICS.test_bits_per_subpixel, METRICS.train_bits_per_subpixel, METRICS.test_standard_error, "exact")
Damage = Callable[[RunFiles], object]


def row_after(root: Path, damage: Damage) -> Row:
    files = whole_run(root, "made")
    write_record(files.figures, FIGURES)
    damage(files)
    (row,) = (row for row in result_rows("cpu", {"made": "key"}, root, None, {"made": EXPECTED}) if row.model == "made")
    return row


def metrics(**changes: Any) -> Damage:
    return lambda files: write_record(files.metrics, replace(_read(files.metrics, Metrics), **changes))


def provenance(**changes: Any) -> Damage:
    return lambda files: write_record(files.provenance, replace(_read(files.provenance, Provenance), **changes))


def both(*damages: Damage) -> Damage:
    return lambda files: [damage(files) for damage in damages]


def claim(files: RunFiles) -> None:
    digest = _read(files.metrics, Metrics).test_nats_sha256
    write_record(files.compression, replace(_read(files.compression, Compression), test_nats_sha256=digest))


def _read(path: Path, kind: type[Any]) -> Any:
    record = read_record(path, kind)
    assert record is not None
    return record


WRONG: Mapping[str, tuple[Damage, str]] = {
    "a figure that its nats do not give": (metrics(test_bits_per_subpixel=3.0), "the nats of its images give"),
    "an error that its nats do not give": (metrics(test_standard_error=0.001), "the nats of its images give"),
    "a figure that DVC shows otherwise": (
        lambda files: write_record(files.figures, replace(FIGURES, train=1.0)),
        r"train_bits_per_subpixel is 3\.4, but bits/made\.json says 1\.0",
    ),
    "damaged figures for DVC": (lambda files: files.figures.write_text("{"), r"bits/made\.json: Invalid JSON"),
    "exact on a bound": (metrics(kind="lower_bound", likelihood="elbo"), "likelihood is elbo, but bits/made.json"),
    "other parameters": (metrics(parameters=5), "parameters is 5, but by its key it has to be 1234567"),
    "other training images": (metrics(num_train_images=9), "num_train_images is 9, but by its key"),
    "other draws": (metrics(num_draws=2), "num_draws is 2, but by its key"),
}


@pytest.mark.parametrize("case", WRONG)
def test_metrics_that_cannot_be_right_cost_their_row(tmp_path: Path, case: str) -> None:
    damage, reason = WRONG[case]
    row = row_after(tmp_path, damage)
    assert row.metrics is None and row.nats is None and "‡" in shown_name(row)
    (fault,) = row.faults
    assert re.search(reason, fault) and "\n" not in fault and "dvc repro" in fault


LEFT_OUT: Mapping[str, tuple[str, Damage, str]] = {
    "provenance of another key": ("provenance", provenance(training_key="other"), "of another training than"),
    "provenance of other weights": (
        "provenance",
        both(provenance(weights_sha256="a" * 64), metrics(weights_sha256="b" * 64)),
        "of another training than the metrics: weights_sha256",
    ),
    "a claim that the nats do not make": ("compression", claim, "claimed_bits_per_subpixel is 3.457500, but the nats"),
    "nats of something else": ("nats", metrics(test_nats_sha256="0" * 64), "not the nats that the metrics"),
    "metrics of unknown nats": ("nats", metrics(test_nats_sha256=None), "do not say which nats"),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_another_record_that_does_not_fit_is_left_out_and_marked(tmp_path: Path, case: str) -> None:
    part, damage, reason = LEFT_OUT[case]
    row = row_after(tmp_path, damage)
    assert row.metrics is not None and getattr(row, part) is None and "‡" in shown_name(row)
    (fault,) = row.faults
    assert reason in fault and "\n" not in fault


def test_what_fits_has_no_fault(tmp_path: Path) -> None:
    fits = both(
        provenance(training_key="training", weights_sha256="a" * 64),
        metrics(weights_sha256="a" * 64),
    )
    row = row_after(tmp_path, fits)
    assert row.faults == () and row.is_current is True and row.provenance is not None


def test_a_stale_row_is_not_held_against_the_settings_of_now(tmp_path: Path) -> None:
    row = row_after(tmp_path, both(metrics(code_and_params_key="old", parameters=5), provenance(training_key="old")))
    assert row.faults == () and row.is_current is False


CODEC = ReferenceCodec("PNG", "", "package 1", "library 2", 5.8, 5.6, 10000)
RUNG = Rung(1, 6145, 6.1, 0.01, 10000, None)
TABLES = ExpectedTables(["PNG", "QOI"], 10000, [1, 2], [2], 10000)
RUNGS = [RUNG, replace(RUNG, num_components=2, em_test_bits_per_subpixel=6.1)]


@pytest.mark.parametrize("codecs", [[CODEC], [CODEC, replace(CODEC, codec="WebP")]], ids=["half", "another"])
def test_codecs_that_were_not_asked_for_are_refused(codecs: list[ReferenceCodec]) -> None:
    with pytest.raises(StageError, match=r"^codecs\.csv: not the 2 codecs that are measured"):
        check_codecs(Path("codecs.csv"), codecs, TABLES)


@pytest.mark.parametrize("rungs", [RUNGS[:1], RUNGS[::-1], [RUNG, replace(RUNG, num_components=2)]])
def test_rungs_that_were_not_asked_for_are_refused(rungs: list[Rung]) -> None:
    with pytest.raises(StageError, match=r"^ladder\.csv: not the numbers of components that params.yaml asks for"):
        check_rungs(Path("ladder.csv"), rungs, TABLES)


def test_tables_of_other_numbers_of_images_are_refused() -> None:
    with pytest.raises(StageError, match=r"of 10000 test images, but params\.yaml asks for 16"):
        check_rungs(Path("ladder.csv"), RUNGS, replace(TABLES, num_ladder_images=16))
    codecs = [CODEC, replace(CODEC, codec="QOI")]
    with pytest.raises(StageError, match=r"of 10000 test images, but params\.yaml asks for 16"):
        check_codecs(Path("codecs.csv"), codecs, replace(TABLES, num_codec_images=16))
    check_codecs(Path("codecs.csv"), codecs, TABLES)
    check_rungs(Path("ladder.csv"), RUNGS, TABLES)


MARKUP = "<script>alert(1)</script> ![x](http://h) [y](z) `c` **b** a|b \\| ~~s~~ $x$ \\input{f} %"


def test_markup_of_a_record_is_text_in_every_format(tmp_path: Path) -> None:
    table = make_table(COLUMNS, [(MARKUP, MARKUP, MARKUP)], "unit", [MARKUP])
    lines = markdown(table).splitlines()
    for line in (lines[2], lines[-1]):
        assert "<" not in line and r"\!\[x\](http://h)" in line and r"\`c\` \*\*b\*\*" in line
    assert lines[2].replace(r"\\", "").replace(r"\|", "").count("|") == 4  # three cells
    text = latex(table)
    assert r"\input" not in text and r"\textbackslash{}input\{f\} \%" in text and r"\$x\$" in text
    files = whole_run(tmp_path, "made")
    write_record(files.provenance, replace(_read(files.provenance, Provenance), device=MARKUP, git_commit="<script>"))
    report = make_report("cpu", {}, tmp_path)
    for name in ("index.html", "compute.md"):
        assert b"<script>alert" not in report.files[name] and b"&lt;script&gt;alert" in report.files[name]
