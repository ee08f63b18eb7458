"""Training curves on disk: points come back bit-identical, and a damaged file is refused with file, line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgm.errors import StageError
from dgm.runs.atomic import write_text
from dgm.runs.records import CURVE_COLUMNS, CurvePoint, read_curve, write_curve

POINTS = [
    CurvePoint(0, 0, 0.0, None, 8.000000000000002),
    CurvePoint(
        step=7, images_seen=224, learning_rate=1e-05, train_bits_per_subpixel=-0.1, validation_bits_per_subpixel=5
    ),
    CurvePoint(8, 256, None, 1 / 3, None),
]
HEADER = "step,images_seen,learning_rate,train_bits_per_subpixel,validation_bits_per_subpixel\n"


def test_points_come_back_bit_identical(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    write_curve(path, POINTS)
    assert read_curve(path) == POINTS
    text = path.read_text(encoding="utf-8")
    assert text.startswith(HEADER.replace("\n", ",sha256\n") + "0,0,0.0,,8.000000000000002,")
    assert ",".join(CURVE_COLUMNS) + "\n" == HEADER


def test_a_model_fitted_in_one_step_has_no_points(tmp_path: Path) -> None:
    write_curve(tmp_path / "curve.csv", [])
    assert read_curve(tmp_path / "curve.csv") == []


@pytest.mark.parametrize("name", CURVE_COLUMNS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "4.5", True, -float("inf")])
def test_a_point_is_checked_when_it_is_made(name: str, value: object) -> None:
    good = {"step": 1, "images_seen": 32, "learning_rate": 0.1, "train_bits_per_subpixel": 4.0}
    with pytest.raises(ValueError, match=name):
        CurvePoint(**{**good, "validation_bits_per_subpixel": None, name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        ("step,loss\n1,2\n", "begins with 'step,loss'"),
        (HEADER + "1,32,0.1,4.5\n", "line 2 has 4 fields, expected 5"),
        (HEADER + "1,32,0.1,4.5,4.6,\n", "line 2 has 6 fields"),
        (HEADER + "1,32,0.1,4.5,4.", "line 2 is cut off"),
        (HEADER + "1,32,0.1,nan,4.6\n", "line 2: train_bits_per_subpixel: .*finite"),
        (HEADER + "1,32,0.1,4.5,1e999\n", "line 2: validation_bits_per_subpixel: .*finite"),
        (HEADER + "1,32,low,4.5,4.6\n", "line 2: learning_rate: .*got 'low'"),
        (HEADER + "1,32,-0.1,4.5,4.6\n", "line 2: learning_rate"),
        (HEADER + "1.5,32,0.1,4.5,4.6\n", "line 2: step"),
        (HEADER + ",32,0.1,4.5,4.6\n", "line 2: step"),
        (HEADER + "-1,32,0.1,4.5,4.6\n", "line 2: step"),
        (HEADER + "2,64,0.1,4.5,4.6\n1,65,0.1,4.5,4.6\n", "line 3: step or images_seen does not increase"),
        (HEADER + "2,64,0.1,4.5,4.6\n3,63,0.1,4.5,4.6\n", "line 3: step or images_seen does not increase"),
        (HEADER + '1,32,0.1,"4.5,4.6\n', "not a CSV table"),
    ],
)
def test_a_damaged_curve_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    write_text(tmp_path / "nice.csv", text)
    with pytest.raises(StageError, match=rf"nice\.csv: {fault}.*; delete it and run `dvc repro`$"):
        read_curve(tmp_path / "nice.csv")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "nice.csv").write_bytes(HEADER.encode() + b"1,\xff,0.1,4.5,4.6\n")
    with pytest.raises(StageError, match=r"nice\.csv: not a CSV table"):
        read_curve(tmp_path / "nice.csv")


def test_an_absent_curve_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"nice\.csv: absent"):
        read_curve(tmp_path / "nice.csv")
