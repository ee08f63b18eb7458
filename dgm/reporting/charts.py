"""The page's plots: SVG within the page, in its light or dark colours; equal data give equal bytes."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, NullLocator

from dgm.reporting.compute_points import ComputePoint
from dgm.reporting.curves import SPLITS, bits_of
from dgm.reporting.plots import FAMILY_COLOURS, UNTRAINED_BITS, spread
from dgm.reporting.rows import PairedDifference, Row

INK, GRID, PAPER = "#1d2430", "#d8dce2", "#ffffff"  # stand in the figures for what the reader's colours are
DARK = {  # light colour -> what stands for it in the dark scheme
    INK: "#d7dce5",
    GRID: "#3a424f",
    PAPER: "#14181f",
    "#dddddd": "#3a424f",
    "#5a5a5a": "#a9b0bb",
    "#8c564b": "#c58f83",
    "#000000": "#d7dce5",
}
OURS, OTHER = "#1f77b4", "#ff7f0e"
INTERVAL = 1.96  # standard errors on either side hold 95 % of a normal distribution
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "dgm",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "legend.facecolor": PAPER,
    "legend.edgecolor": GRID,
}


@dataclass(frozen=True)
class Picture:
    """A picture within the page: a data URI, what it shows for those who cannot see it, and its width in pixels."""

    uri: str
    text: str
    width: int


def drawn(figure: Callable[[], Figure], text: str) -> Picture:
    """What the function draws, in the page's style."""
    with matplotlib.rc_context(STYLE):
        made = figure()
    return _picture(made, text)


def _picture(figure: Figure, text: str) -> Picture:
    """The figure as SVG; its colours change with the reader's scheme, light or dark."""
    with matplotlib.rc_context(STYLE):
        buffer = io.BytesIO()
        FigureCanvasSVG(figure).print_figure(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue().decode("utf-8")
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<!DOCTYPE[^>]*>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\n\s*", "\n", svg)
    names = {colour: f"--c{number}" for number, colour in enumerate(DARK)}
    for colour, name in names.items():
        svg = svg.replace(colour, f"var({name})")
    light = "".join(f"{name}:{colour};" for colour, name in names.items())
    dark = "".join(f"{names[colour]}:{other};" for colour, other in DARK.items())
    style = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    svg = re.sub(r"(<svg[^>]*>)", rf"\1{style}", svg, count=1)
    uri = "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")
    return Picture(uri, text, round(figure.get_figwidth() * 96))


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        axes.grid(True, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def curve_picture(row: Row) -> Picture | None:
    """Training and validation bits against images seen, with the published figure; None without a curve.

    Bits above those of a uniform guess are cut.
    """
    lines = {split: [(point.images_seen, bits_of(point, split)) for point in row.curve] for split in SPLITS}
    measured = {split: [(seen, bits) for seen, bits in line if bits is not None] for split, line in lines.items()}
    if max(len(line) for line in measured.values()) < 2:
        return None
    figure, axes = _axes(5.4, 2.7)
    with matplotlib.rc_context(STYLE):
        for split, colour in zip(SPLITS, (OTHER, OURS), strict=True):
            if measured[split]:
                seen, bits = np.array(measured[split]).T
                axes.plot(seen, bits, color=colour, linewidth=1.4, marker="o", markersize=2.5, label=split)
        if (published := row.published.published_test) is not None:
            axes.axhline(published, color=INK, linewidth=0.8, linestyle=":", label="published, test")
        top = min(UNTRAINED_BITS, axes.get_ylim()[1])
        axes.set(xlabel="images seen", ylabel="bits per sub-pixel", ylim=(axes.get_ylim()[0], max(top, 1.0)))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="x", nbins=5)
        axes.legend(fontsize=8)
    return _picture(figure, f"Training curve of {row.published.name}: bits per sub-pixel against images seen")


def compute_picture(points: Sequence[ComputePoint]) -> Picture | None:
    """Test bits against training operations on logarithmic axes, every profile, and published runs; None without."""
    if not points:
        return None
    figure, axes = _axes(9.2, 6.4)
    with matplotlib.rc_context(STYLE):
        axes.set(
            xscale="log", yscale="log", xlabel="floating-point operations of training", ylabel="bits per sub-pixel"
        )
        for point in points:
            colour = FAMILY_COLOURS.get(point.family, "#000000")
            face = "none" if point.is_published else colour
            axes.plot([point.flops], [point.bits], "o", mfc=face, mec=colour, markersize=6)
        low, high = (min(point.bits for point in points), max(point.bits for point in points))
        axes.set_ylim(low * 0.96, high * 1.04)
        axes.yaxis.set_major_locator(MultipleLocator(0.2))
        axes.yaxis.set_major_formatter("{x:.1f}")
        axes.yaxis.set_minor_locator(NullLocator())
        _name_points(axes, points)
        families = dict.fromkeys(point.family for point in points)
        marks = [
            axes.plot([], [], "s", color=FAMILY_COLOURS.get(family, "#000000"), label=family)[0] for family in families
        ]
        marks += axes.plot([], [], "o", mfc="none", mec=INK, label="published (estimated operations)")
        axes.legend(handles=marks, fontsize=8, loc="lower left")
    return _picture(figure, "Bits per sub-pixel on the test images against operations of training, all profiles")


def _name_points(axes: Axes, points: Sequence[ComputePoint]) -> None:
    """Names to the right, moved up or down until none covers another among those of similar compute."""
    to_axes = axes.transData + axes.transAxes.inverted()
    places = {point: to_axes.transform((point.flops, point.bits)) for point in points}
    left = sorted(points, key=lambda point: (places[point][0], point.name))
    groups: list[list[ComputePoint]] = []
    for point in left:
        if groups and places[point][0] - places[groups[-1][0]][0] < 0.16:
            groups[-1].append(point)
        else:
            groups.append([point])
    for group in groups:
        ordered = sorted(group, key=lambda point: places[point][1])
        heights = _around([float(places[point][1]) for point in ordered], 0.026)
        right = max(float(places[point][0]) for point in group) + 0.018
        for point, height in zip(ordered, heights, strict=True):
            x, y = (float(value) for value in places[point])
            axes.plot([x, right - 0.003], [y, height], color=INK, linewidth=0.35, alpha=0.6, transform=axes.transAxes)
            axes.text(right, height, point.name, fontsize=7.5, va="center", transform=axes.transAxes)


def _around(places: Sequence[float], gap: float) -> list[float]:
    """Rising places, `gap` apart, moved as little up as down."""
    up = spread(places, gap)
    down = [1.0 - place for place in spread([1.0 - place for place in reversed(places)], gap)][::-1]
    return [(above + below) / 2 for above, below in zip(up, down, strict=True)]


def differences_picture(differences: Sequence[PairedDifference], names: Mapping[str, str]) -> Picture | None:
    """What each model saves over the next one in the ranking, with a 95 % interval; None without a pair."""
    pairs = [pair for pair in differences if pair.difference_bits_per_subpixel is not None]
    if not pairs:
        return None
    figure, axes = _axes(7.6, 0.9 + 0.27 * len(pairs))
    with matplotlib.rc_context(STYLE):
        saved = [pair.difference_bits_per_subpixel or 0.0 for pair in pairs]
        errors = [INTERVAL * (pair.standard_error or 0.0) for pair in pairs]
        heights = np.arange(len(pairs))[::-1]
        axes.errorbar(saved, heights, xerr=errors, fmt="o", color=OURS, markersize=4, capsize=2.5, elinewidth=1.2)
        labels = [f"{names[pair.model_a]} over {names[pair.model_b]}" for pair in pairs]
        axes.set_yticks(heights, labels, fontsize=8)
        axes.set_xscale("symlog", linthresh=0.01)
        axes.axvline(0.0, color=INK, linewidth=0.8)
        ticks = [0.0, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
        axes.set_xticks([tick for tick in ticks if tick <= 1.3 * max(saved)], minor=False)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(right=2.0 * max(saved))
        axes.set_xlabel("bits per sub-pixel saved, with 95 % interval")
    return _picture(figure, "What each model saves over the next in the ranking, with 95 % intervals")


def image_bits_picture(bits: np.ndarray, name: str) -> Picture:
    """How the images' own figures are spread. Shapes: bits per sub-pixel of each test image (N,)."""
    figure, axes = _axes(5.4, 2.3)
    with matplotlib.rc_context(STYLE):
        axes.stairs(*np.histogram(bits, bins=80), fill=True, color=OURS)
        axes.axvline(float(bits.mean()), color=INK, linewidth=1.0, linestyle=":", label=f"mean {bits.mean():.3f}")
        axes.set(xlabel="bits per sub-pixel of one image", ylabel="test images")
        axes.legend(fontsize=8)
    return _picture(figure, f"Histogram of the bits per sub-pixel of single test images under {name}")


def levels_picture(test: np.ndarray, samples: np.ndarray, name: str) -> Picture:
    """How often each of the 256 levels occurs in test images and in samples. Shapes: counts (256,) each."""
    figure, axes = _axes(5.4, 2.3)
    with matplotlib.rc_context(STYLE):
        axes.fill_between(range(256), 100 * test / test.sum(), step="mid", color=GRID, label="test images")
        axes.step(range(256), 100 * samples / samples.sum(), where="mid", color=OURS, linewidth=0.9, label="samples")
        axes.set(xlabel="level of a sub-pixel", ylabel="percent of sub-pixels", xlim=(-3, 258), ylim=(0, None))
        axes.legend(fontsize=8)
    return _picture(figure, f"How often each level occurs in the test images and in samples of {name}")
