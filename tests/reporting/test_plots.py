"""Plots: the long form of the curves, labels that do not overlap, pictures that depend on the run files only."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dgm.reporting import plots
from dgm.reporting.curves import curves_csv
from dgm.reporting.plots import ladder_png, spread, training_curves_png
from dgm.reporting.rows import result_rows
from dgm.runs.records import CurvePoint
from tests.reporting.made_up import BOUND, metrics


def pixels(png: bytes) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(png), format="png")


def test_long_form_has_one_line_per_measured_point() -> None:
    curves = {
        "uniform": [CurvePoint(0, 45000, None, 8.0, None)],
        "nice": [CurvePoint(0, 0, 0.0, 8.0, 8.1), CurvePoint(5, 160, 0.1, 6.5, None)],
    }
    assert curves_csv(curves).splitlines() == [
        "model,step,images_seen,bits_per_subpixel,split",
        "uniform,0,45000,8.0,train",
        "nice,0,0,8.0,train",
        "nice,5,160,6.5,train",
        "nice,0,0,8.1,validation",
    ]


def test_without_curves_the_long_form_is_its_header() -> None:
    assert curves_csv({}) == "model,step,images_seen,bits_per_subpixel,split\n"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure, as it was when it became PNG bytes."""
    figures: list[Figure] = []
    to_png = plots.png
    monkeypatch.setattr(plots, "png", lambda figure: figures.append(figure) or to_png(figure))
    return figures


def lines(axes: Axes) -> list[list[tuple[float, float]]]:
    """The points of the curves, without the lines to their names, which are in coordinates of the axes."""
    return [
        [(step, bits) for step, bits in np.asarray(line.get_xydata()).tolist()]
        for line in axes.lines
        if line.get_transform() == axes.transData
    ]


def test_each_curve_is_drawn_in_its_own_axes_and_named_with_its_last_figure(drawn: list[Figure]) -> None:
    training_curves_png(
        {
            "made": [CurvePoint(1, 32, 0.1, 7.0, 7.1), CurvePoint(100, 3200, 0.1, 5.0, 5.25)],
            "nice": [CurvePoint(1, 32, 0.1, 6.0, None), CurvePoint(50, 1600, 0.1, 5.5, None)],
        }
    )
    train, validation = drawn[0].axes
    assert (train.get_title(), validation.get_title()) == ("Training", "Validation")
    assert lines(train) == [[(1, 7.0), (100, 5.0)], [(1, 6.0), (50, 5.5)]]
    assert lines(validation) == [[(1, 7.1), (100, 5.25)]]
    assert [text.get_text() for text in validation.texts] == ["MADE  5.25", "NICE  5.50 (train)"]


def test_curves_without_two_points_after_step_0_are_left_out(drawn: list[Figure]) -> None:
    training_curves_png(
        {
            "uniform": [CurvePoint(0, 45000, None, 8.0, None)],
            "vae": [CurvePoint(0, 0, 0.1, 8.0, 8.0), CurvePoint(7, 224, 0.1, 6.0, 6.1)],  # step 0 has no logarithm
        }
    )
    train, validation = drawn[0].axes
    assert lines(train) == lines(validation) == []
    assert [text.get_text() for text in train.texts] == ["no training curves yet"] and not validation.texts


def test_an_empty_profile_still_gives_pictures(tmp_path: Path) -> None:
    assert pixels(training_curves_png({})).ndim == 3
    assert pixels(ladder_png(result_rows("cpu", {}, tmp_path))).ndim == 3


def test_the_ladder_marks_a_bound(tmp_path: Path) -> None:
    metrics(tmp_path, "nice", test_bits_per_subpixel=4.6)
    exact = ladder_png(result_rows("cpu", {}, tmp_path))
    metrics(tmp_path, "nice", test_bits_per_subpixel=4.6, **BOUND)
    assert ladder_png(result_rows("cpu", {}, tmp_path)) != exact


def test_spread_keeps_the_gap_the_order_and_the_frame() -> None:
    moved = spread([0.0, 0.0, 0.0, 0.97, 0.99, 1.0], 0.05)
    assert np.diff(moved).min() >= 0.05 - 1e-12
    assert (min(moved), max(moved)) == (0.0, 1.0)
    assert spread([0.2, 0.5], 0.05) == [0.2, 0.5]
