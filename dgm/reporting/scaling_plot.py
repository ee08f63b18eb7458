"""The scaling figure: one line a model, its bits against the operations of its trainings."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dgm.reporting.plots import png, spread, styles_of
from dgm.reporting.scaling import Scaling, in_order, last, shown_name

LABEL_GAP = 0.034  # of the height of the axes, between the names at the lines' ends
MARGIN_BITS = 0.05
WIDTH, HEIGHT = 5.4, 6.4  # inches: narrow, so that the letters stay readable where a phone shrinks it


def scaling_png(scaling: Scaling) -> bytes:
    """`scaling_figure` as a PNG."""
    return png(scaling_figure(scaling))


def scaling_figure(scaling: Scaling) -> Figure:
    """Validation bits against training operations (log), a quarter, one and four times the budget of each row.

    A line is named at its end; hollow points are bounds.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.12, right=0.595, top=0.985, bottom=0.075)
    styles = styles_of(list(scaling.models))
    for model, points in scaling.models.items():
        colour, style = styles[model]
        flops = [float(point.training_flops) for point in in_order(points)]
        bits = [point.validation_bits_per_subpixel for point in in_order(points)]
        face = "none" if last(points).is_bound else colour
        axes.plot(flops, bits, color=colour, linestyle=style, linewidth=1.3, marker="o", markersize=4, mfc=face)
    axes.set(xlabel="floating-point operations of training", ylabel="bits per sub-pixel, validation", xscale="log")
    axes.grid(True, which="major", linewidth=0.6, alpha=0.5)
    axes.set_axisbelow(True)
    if scaling.models:
        _limit(axes, scaling)
        _name_ends(axes, scaling, styles)
        axes.legend(handles=_legend(), fontsize=8, loc="lower left")
    else:
        axes.text(0.5, 0.5, "not computed yet", ha="center", transform=axes.transAxes)
    return figure


def _limit(axes: Axes, scaling: Scaling) -> None:
    bits = [point.validation_bits_per_subpixel for points in scaling.models.values() for point in points.values()]
    axes.set_ylim(min(bits) - MARGIN_BITS, max(bits) + MARGIN_BITS)


def _name_ends(axes: Axes, scaling: Scaling, styles: dict[str, tuple[str, Any]]) -> None:
    """Names to the right of the axes in the order of the lines' ends, each led to by a thin line."""
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = {
        model: last(points) for model, points in reversed(list(scaling.models.items()))
    }  # from the worst to the best
    starts = {
        model: to_axes.transform((float(point.training_flops), point.validation_bits_per_subpixel))
        for model, point in ends.items()
    }
    order = sorted(ends, key=lambda model: float(starts[model][1]))
    places = spread([float(starts[model][1]) for model in order], LABEL_GAP)
    for model, place in zip(order, places, strict=True):
        colour, style = styles[model]
        drawn: dict[str, Any] = {"transform": axes.transAxes, "color": colour, "clip_on": False}
        axes.plot([starts[model][0], 1.0, 1.03], [starts[model][1], place, place], linewidth=0.5, alpha=0.6, **drawn)
        axes.plot([1.03, 1.11], [place, place], linestyle=style, linewidth=1.6, **drawn)
        label = f"{shown_name(model)} {ends[model].validation_bits_per_subpixel:.2f}"
        axes.text(1.13, place, label, fontsize=8, va="center", transform=axes.transAxes)


def _legend() -> list[Line2D]:
    grey = "#5a5a5a"
    return [
        Line2D([], [], marker="o", linestyle="", color=grey, markersize=4, label="exact"),
        Line2D([], [], marker="o", linestyle="", color=grey, mfc="none", markersize=4, label="bound"),
    ]
