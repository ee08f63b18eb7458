"""Training curves and the ladder of results as PNG bytes that depend on the run files only."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dgm.reporting.curves import SPLITS, Curves, Split, bits_of
from dgm.reporting.published import CATALOGUE
from dgm.reporting.rows import Row
from dgm.runs.records import CurvePoint, Rung

UNTRAINED_BITS = 8.0  # a uniform model of 256 levels: curves that start above it are cut there
LABEL_GAP = 0.026  # of the height of the axes, between the labels at the curves' ends
_STYLES: tuple[tuple[str, Any], ...] = tuple(
    (colour, style)
    for style in ("-", (0, (5, 1)), (0, (2, 1)))
    for colour in ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17a3b5", "#8c564b", "#d63fa0", "#5a5a5a")
)
FAMILY_COLOURS = {
    "closed form": "#5a5a5a",
    "mixture": "#8c564b",
    "flow": "#2ca02c",
    "diffusion": "#d63fa0",
    "latent variable": "#ff7f0e",
    "autoregressive": "#1f77b4",
}


def training_curves_png(curves: Curves) -> bytes:
    """Bits per sub-pixel against the step (log), train and validation side by side; every validation curve is named.

    Step 0 and models of a single point (closed forms) have no place on a logarithmic axis: they are left out.
    """
    figure = Figure(figsize=(13, 7.2))
    train, validation = figure.subplots(1, 2, sharex=True, sharey=True)
    figure.subplots_adjust(left=0.055, right=0.775, top=0.93, bottom=0.085, wspace=0.05)
    styles = styles_of(list(curves))
    ends: list[tuple[str, float | None, float]] = []
    for model, curve in curves.items():
        lines = {split: _line(curve, split) for split in SPLITS}
        for split, axes in zip(SPLITS, (train, validation), strict=True):
            if len(lines[split]) >= 2:
                colour, style = styles[model]
                axes.plot(*lines[split].T, color=colour, linestyle=style, linewidth=1.3)
        for split in SPLITS[::-1]:  # a model without validation points is named at the end of its training curve
            if len(lines[split]) >= 2:
                step, bits = (float(value) for value in lines[split][-1])
                ends.append((model, step if split == "validation" else None, bits))
                break
    for axes, title in ((train, "Training"), (validation, "Validation")):
        axes.set(title=title, xlabel="step (EM iteration)", xscale="log")
        axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    train.set_ylabel("bits per sub-pixel")
    _limit(train, [end for _, _, end in ends])
    _name_ends(validation, ends, styles)
    return png(figure)


def _line(curve: Sequence[CurvePoint], split: Split) -> np.ndarray:
    """Step and bits of each measured point after step 0. Shapes: -> (N, 2)."""
    points = [(point.step, bits) for point in curve if point.step >= 1 and (bits := bits_of(point, split)) is not None]
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def styles_of(models: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Colour and line style of each model, the same in every figure."""
    order = [*CATALOGUE, *(model for model in models if model not in CATALOGUE)]
    return {model: _STYLES[index % len(_STYLES)] for index, model in enumerate(order)}


def _limit(axes: Axes, ends: Sequence[float]) -> None:
    if not ends:
        axes.text(0.5, 0.5, "no training curves yet", ha="center", transform=axes.transAxes)
        return
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, min(ends) - 0.4), min(high, max(UNTRAINED_BITS, *ends) + 0.1))


def _name_ends(
    axes: Axes, ends: Sequence[tuple[str, float | None, float]], styles: Mapping[str, tuple[str, Any]]
) -> None:
    low, high = axes.get_ylim()
    ends = sorted(ends, key=lambda end: end[2])
    places = spread([(value - low) / (high - low) for _, _, value in ends], LABEL_GAP)
    to_axes = axes.transData + axes.transAxes.inverted()
    for (model, step, value), place in zip(ends, places, strict=True):
        colour, style = styles[model]
        drawn: dict[str, Any] = {"transform": axes.transAxes, "color": colour, "clip_on": False}
        start = to_axes.transform((step, value)) if step else (1.0, place)
        axes.plot([start[0], 1.0, 1.04], [start[1], place, place], linewidth=0.5, alpha=0.6, **drawn)
        axes.plot([1.045, 1.10], [place, place], linestyle=style, linewidth=1.6, **drawn)
        label = f"{_name(model)}  {value:.2f}{'' if step else ' (train)'}"
        axes.text(1.11, place, label, fontsize=7.5, va="center", **drawn)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Rising places moved as little as needed to be `gap` apart, within [0, 1] as far as they fit."""
    moved = list(places)
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + gap)
    top = 1.0
    for index in range(len(moved) - 1, -1, -1):
        moved[index] = min(moved[index], top)
        top = moved[index] - gap
    return moved


def _name(model: str) -> str:
    return CATALOGUE[model].name if model in CATALOGUE else model


def ladder_png(rows: Sequence[Row]) -> bytes:
    """`ladder_figure` as a PNG."""
    return png(ladder_figure(rows))


def ladder_figure(rows: Sequence[Row]) -> Figure:
    """Every model, best on top: the published figure hollow, ours filled with its error, bounds with an arrow."""
    placed = [(place, row) for row in rows if (place := _place(row)) is not None]
    shown = [row for _, row in sorted(placed, key=lambda pair: (-pair[0], pair[1].model))]
    figure = Figure(figsize=(9, 1.3 + 0.29 * max(len(shown), 4)), layout="constrained")
    axes = figure.subplots()
    for height, row in enumerate(shown):
        _draw_row(axes, row, height)
    axes.set_yticks(np.arange(len(shown)), [row.published.name for row in shown], fontsize=8)
    axes.set(xlabel="bits per sub-pixel on the test images (smaller is better)", ylim=(-0.7, len(shown) - 0.3))
    axes.grid(True, axis="x", color="#dddddd", linewidth=0.6)
    axes.legend(handles=_ladder_legend(), fontsize=8, loc="upper right", framealpha=1.0)
    return figure


def _draw_row(axes: Axes, row: Row, height: int) -> None:
    colour = FAMILY_COLOURS.get(row.published.family, "#000000")
    ours, published = row.metrics, row.published.published_test
    if ours is not None and published is not None:
        axes.plot([ours.test_bits_per_subpixel, published], [height, height], color=colour, linewidth=0.8, alpha=0.5)
    if published is not None:
        axes.plot([published], [height], "o", mfc="white", mec=colour, markersize=7)
    if ours is not None:
        bits = ours.test_bits_per_subpixel
        axes.errorbar([bits], [height], xerr=[ours.test_standard_error], fmt="o", color=colour, markersize=6)
        if ours.kind == "lower_bound":
            axes.annotate("", (bits - 0.17, height), (bits, height), arrowprops={"arrowstyle": "->", "color": colour})


def _place(row: Row) -> float | None:
    return row.published.published_test if row.test_bits is None else row.test_bits


def _ladder_legend() -> list[Line2D]:
    grey = "#5a5a5a"
    return [
        Line2D([], [], marker="o", linestyle="", mfc="white", mec=grey, markersize=7, label="published"),
        Line2D([], [], marker="o", linestyle="", color=grey, markersize=6, label="ours (± one standard error)"),
        Line2D([], [], marker=r"$\leftarrow$", linestyle="", color=grey, markersize=9, label="ours is a bound"),
        *(
            Line2D([], [], marker="s", linestyle="", color=colour, markersize=6, label=family)
            for family, colour in FAMILY_COLOURS.items()
        ),
    ]


def ppca_ladder_png(rungs: Sequence[Rung]) -> bytes:
    """`ppca_ladder_figure` as a PNG."""
    return png(ppca_ladder_figure(rungs))


def ppca_ladder_figure(rungs: Sequence[Rung]) -> Figure:
    """Bits per sub-pixel of PPCA against its number of components (log), with one standard error."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    if rungs:
        counts = [rung.num_components for rung in rungs]
        bits = [rung.test_bits_per_subpixel for rung in rungs]
        errors = [rung.test_standard_error for rung in rungs]
        axes.errorbar(counts, bits, yerr=errors, fmt="o-", color="#1f77b4", markersize=5)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
    else:
        axes.text(0.5, 0.5, "not computed yet", ha="center", transform=axes.transAxes)
    axes.set(xlabel="principal components", ylabel="bits per sub-pixel (bound)", title="PPCA on the test images")
    axes.grid(True, color="#dddddd", linewidth=0.6)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG; equal figures give equal bytes."""
    with matplotlib.rc_context({"font.family": "DejaVu Sans"}):
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=120, metadata={"Software": None})
        return buffer.getvalue()
