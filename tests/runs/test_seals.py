"""A changed digit in a record or in a table is found, wherever it stands; older files without seals are read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from dgm.errors import StageError
from dgm.runs.records import CurvePoint, Figures, Metrics, read_curve, read_record, write_curve, write_record
from tests.reporting.made_up import METRICS

POINTS = [CurvePoint(step, 4 * step, 0.5, 5.25, None) for step in (2, 4, 6)]


def test_every_other_digit_of_a_record_is_found(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    write_record(path, METRICS)
    text = path.read_text(encoding="utf-8")
    assert read_record(path, Metrics) == METRICS
    for where in (number for number, letter in enumerate(text) if letter.isdigit()):
        path.write_text(f"{text[:where]}{(int(text[where]) + 1) % 10}{text[where + 1 :]}", encoding="utf-8")
        with pytest.raises(StageError, match=r"^\S+made\.json: [^\n]+; delete it and run `dvc repro`$"):
            read_record(path, Metrics)


def test_every_other_digit_and_a_line_less_of_a_table_are_found(tmp_path: Path) -> None:
    path = tmp_path / "made.csv"
    write_curve(path, POINTS)
    text = path.read_text(encoding="utf-8")
    assert read_curve(path) == POINTS
    changed = [
        f"{text[:where]}{(int(text[where]) + 1) % 10}{text[where + 1 :]}"
        for where in (number for number, letter in enumerate(text) if letter.isdigit())
    ]
    lines = text.splitlines(keepends=True)
    changed += ["".join(lines[:1] + lines[2:]), "".join([*lines, lines[-1]])]
    for other in changed:
        path.write_text(other, encoding="utf-8")
        with pytest.raises(StageError, match=r"^\S+made\.csv: [^\n]+; delete it and run `dvc repro`$"):
            read_curve(path)


def test_a_key_that_was_added_is_named(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    write_record(path, METRICS)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"more": 1}), encoding="utf-8")
    with pytest.raises(StageError, match=r"made\.json: more: "):
        read_record(path, Metrics)


def test_files_that_are_older_than_seals_are_read(tmp_path: Path) -> None:
    record, curve = tmp_path / "made.json", tmp_path / "made.csv"
    record.write_text(json.dumps(asdict(METRICS), indent=2), encoding="utf-8")
    assert read_record(record, Metrics) == METRICS
    write_curve(curve, POINTS)
    lines = curve.read_text(encoding="utf-8").splitlines()
    curve.write_text("".join(f"{line.rpartition(',')[0]}\n" for line in lines), encoding="utf-8")
    assert read_curve(curve) == POINTS


def test_what_dvc_shows_has_no_seal(tmp_path: Path) -> None:
    write_record(tmp_path / "made.json", Figures(4.5, 4.25, 0.01, "exact"))
    assert set(json.loads((tmp_path / "made.json").read_bytes())) == {"test", "train", "error", "likelihood"}
