"""The figures that a report shows as current, and which of them another report may not show."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.faults.projects import PROFILE

KEYS = {  # the columns that say what a row of a table is about
    "results.csv": ("model",),
    "cifar10_pixelrnn.csv": ("model", "published_test"),
    "cifar10_pixelcnn_pp.csv": ("model", "published_test"),
    "cifar10_all.csv": ("model",),
    "compute.csv": ("model",),
    "bound_terms.csv": ("model", "term"),
    "curves.csv": ("model", "step", "split"),
    "reference_codecs.csv": ("codec",),
}
MARKS = " †‡§"
STALE, LEFT_OUT = "†", "‡"
NO_FIGURES = ("is_current", "tier", "alarm", "num_decoded_images")  # less is proven where a proof is left out
Cell = tuple[str, ...]  # file, key, column


@dataclass(frozen=True)
class Shown:
    """cells: figure -> text, without those of rows that are marked as stale. pairs: paired differences.

    marked: models, and rows of the tables in Markdown, that say that they are stale or damaged.
    """

    cells: Mapping[Cell, str]
    pairs: Mapping[tuple[str, str], tuple[float, float]]
    marked: frozenset[str]


def shown(project: Path) -> Shown:
    """What the report in reports/smoke/ shows."""
    folder = project / "reports" / PROFILE
    results = rows_of(folder / "results.csv")
    stale = {row["model"] for row in results if row["is_current"] == "False"}
    cells: dict[Cell, str] = {}
    for file, keys in KEYS.items():
        for row in rows_of(folder / file):
            if row.get("model") in stale:
                continue
            key = tuple(row[name] for name in keys)
            cells |= {(file, *key, column): text for column, text in row.items() if column not in NO_FIGURES}
    damaged: set[str] = set()
    for path in sorted(folder.glob("cifar10_*.md")):
        for name, column, text, mark in table_cells(path):
            damaged |= {name} if mark else set()
            if mark == STALE:
                continue
            cells[path.name, name, column] = text
    pairs = {
        (row["model_a"], row["model_b"]): (float(row["difference_bits_per_subpixel"]), float(row["standard_error"]))
        for row in rows_of(folder / "paired_differences.csv")
        if row["difference_bits_per_subpixel"] and not {row["model_a"], row["model_b"]} & stale
    }
    return Shown(cells, pairs, frozenset(stale | damaged))


def wrong_figures(golden: Shown, other: Shown, nats: Mapping[str, np.ndarray]) -> list[str]:
    """What `other` shows as current and is neither undisturbed nor empty. nats: the undisturbed, by model."""
    found = [
        f"{'/'.join(cell)} is {text}, undisturbed {golden.cells.get(cell, 'absent')}"
        for cell, text in other.cells.items()
        if text and text != golden.cells.get(cell)
    ]
    for (a, b), (difference, error) in other.pairs.items():
        if a not in nats or b not in nats:
            found.append(f"a difference of {a} and {b}, of which one has no nats")
            continue
        saved = (nats[a] - nats[b]) / (3072 * np.log(2))
        right = (float(saved.mean()), float(saved.std(ddof=1)) / len(saved) ** 0.5)
        if not np.allclose((difference, error), right, rtol=1e-9, atol=1e-12):
            found.append(f"the difference of {a} and {b} is {difference}, undisturbed {right[0]}")
    return found


def missing_figures(golden: Shown, other: Shown) -> list[str]:
    """Figures that `other` leaves out, and whose row is not marked."""
    return [
        "/".join(cell)
        for cell, text in golden.cells.items()
        if text and not other.cells.get(cell) and cell[1] not in other.marked
    ]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table_cells(path: Path) -> list[tuple[str, str, str, str]]:
    """(row, column, text, mark) of the columns with our figures of a table in Markdown."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found: list[tuple[str, str, str, str]] = []
    for cells in table[2:]:
        name = cells[0].rstrip(MARKS)
        marks = cells[0][len(name) :]
        mark = STALE if STALE in marks else (LEFT_OUT if LEFT_OUT in marks else "")
        found += [
            (f"{name} {cells[1]}", column, text, mark)
            for column, text in zip(table[0], cells, strict=True)
            if column.startswith("Ours")
        ]
    return found
