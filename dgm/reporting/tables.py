"""Rows -> tables: full precision in CSV, rounded for reading in Markdown and LaTeX. An empty cell is empty in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import pandas as pd
from tabulate import tabulate

from dgm.reporting.published import PIXELCNN_PP_TABLE, PIXELRNN_TABLE, PublishedRow
from dgm.reporting.rows import LOWER_BOUND, RESULT_COLUMNS, BoundTerm, PairedDifference, ResultRow

LECTURE_TABLES = {"cifar10_pixelrnn": PIXELRNN_TABLE, "cifar10_pixelcnn_pp": PIXELCNN_PP_TABLE}
COLUMNS = ("Model", "Published", "Ours, test", "Ours, train", "How reached")
ALL_COLUMNS = (*COLUMNS, "Parameters")
NUMERIC_COLUMNS = frozenset(
    {
        *("Published", "Ours, test", "Ours, train", "Parameters", "One file an image", "All in one picture"),
        *("Seconds", "Images seen", "Images/s", "Training PFLOP", "Peak GiB"),
    }
)
NUM_TEST_IMAGES = 10000
STALE = "†"
STALE_NOTE = f"{STALE} stale: code or parameters have changed since; dvc repro brings it up to date."
UNIT_NOTE = (
    "Bits per sub-pixel, smaller is better; published training figures in brackets; "
    "± one standard error over test images; ≤ marks a bound."
)
_LATEX_SYMBOLS = {"≤": r"$\leq$", "±": r"$\pm$", "†": r"$\dagger$"}
_MEASURED = (
    "likelihood",
    "kind",
    "test_bits_per_subpixel",
    "test_standard_error",
    "train_bits_per_subpixel",
    "num_test_images",
    "is_current",
)


@dataclass(frozen=True)
class Table:
    """Cells ready to read under `columns`, and the lines that belong under the table; the first gives the unit."""

    columns: Sequence[str]
    cells: Sequence[Sequence[str]]
    lines: Sequence[str] = ()


def results_csv(rows: Sequence[ResultRow]) -> str:
    """results.csv: every row, every column, numbers that read back bit-identical."""
    return _csv(pd.DataFrame([asdict(row) for row in rows], columns=list(RESULT_COLUMNS), dtype=object))


def differences_csv(differences: Sequence[PairedDifference]) -> str:
    """paired_differences.csv; only its header where fewer than two models can be compared."""
    columns = [field.name for field in fields(PairedDifference)]
    return _csv(pd.DataFrame([asdict(difference) for difference in differences], columns=columns, dtype=object))


def bound_terms_csv(terms: Sequence[BoundTerm]) -> str:
    """bound_terms.csv; only its header where no model has a bound of several parts."""
    columns = [field.name for field in fields(BoundTerm)]
    return _csv(pd.DataFrame([asdict(term) for term in terms], columns=columns, dtype=object))


def lecture_csv(entries: Sequence[PublishedRow], rows: Sequence[ResultRow]) -> str:
    """One of the lecture's tables, row for row, with the reproduced figure beside the published one."""
    by_model = {row.model: row for row in rows}
    records = [
        {
            "model": entry.key,
            "name": entry.name,
            "published_test": entry.published_test,
            "published_train": entry.published_train,
            "published_source": entry.published_source,
            **{name: getattr(by_model[entry.key], name) for name in _MEASURED},
        }
        for entry in entries
    ]
    return _csv(pd.DataFrame(records, dtype=object))


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")


def readable_tables(rows: Sequence[ResultRow], profile: str) -> dict[str, Table]:
    """File name without suffix -> table: the lecture's two, row for row and in their order, and everything."""
    by_model = {row.model: row for row in rows}
    tables = {
        name: Table(
            COLUMNS,
            [_cells(entry, by_model[entry.key]) for entry in entries],
            _notes([by_model[entry.key] for entry in entries], profile),
        )
        for name, entries in LECTURE_TABLES.items()
    }
    everything = [
        [*_cells(row, row), "" if row.parameters is None else f"{row.parameters:,}"] for row in all_rows(rows)
    ]
    return {**tables, "cifar10_all": Table(ALL_COLUMNS, everything, _notes(rows, profile))}


def all_rows(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Every row, like the lecture from worst to best by our test figure; rows without a result last."""
    measured = [row for row in rows if row.test_bits_per_subpixel is not None]
    empty = [row for row in rows if row.test_bits_per_subpixel is None]
    return [*sorted(measured, key=lambda row: -(row.test_bits_per_subpixel or 0.0)), *empty]


def _cells(entry: PublishedRow | ResultRow, row: ResultRow) -> list[str]:
    name = f"{entry.name} {STALE}" if row.is_current is False else entry.name
    return [name, published_cell(entry.published_test, entry.published_train), *_measured_cells(row)]


def published_cell(test: float | None, train: float | None) -> str:
    """'3.14 (3.08)', '3.14', or nothing where nothing was published."""
    if test is None:
        return ""
    return f"{test:.2f}" if train is None else f"{test:.2f} ({train:.2f})"


def _measured_cells(row: ResultRow) -> tuple[str, str, str]:
    if row.test_bits_per_subpixel is None or row.train_bits_per_subpixel is None or row.likelihood is None:
        return "", "", ""
    sign = "≤ " if row.kind == LOWER_BOUND else ""
    test = f"{sign}{row.test_bits_per_subpixel:.3f} ± {row.test_standard_error:.3f}"
    return test, f"{sign}{row.train_bits_per_subpixel:.3f}", row.likelihood


def _notes(rows: Sequence[ResultRow], profile: str) -> list[str]:
    lines = [f"{UNIT_NOTE} Profile {profile}."]
    counts = sorted({row.num_test_images for row in rows if row.num_test_images is not None} - {NUM_TEST_IMAGES})
    if counts:
        seen = " or ".join(f"{count:,}" for count in counts)
        lines.append(f"Some rows are scored on only {seen} of the {NUM_TEST_IMAGES:,} test images.")
    if any(row.is_current is False for row in rows):
        lines.append(STALE_NOTE)
    return lines


def markdown(table: Table) -> str:
    """A Markdown table with its lines under it."""
    escaped = [[cell.replace("|", r"\|").replace("_", r"\_") for cell in row] for row in table.cells]
    text = tabulate(
        escaped, list(table.columns), tablefmt="pipe", disable_numparse=True, colalign=_alignment(table.columns)
    )
    return "\n\n".join([text, *table.lines]) + "\n"


def latex(table: Table) -> str:
    """A booktabs tabular for a table environment; the line with the unit as a comment, the others under the table."""
    text = tabulate(
        table.cells,
        list(table.columns),
        tablefmt="latex_booktabs",
        disable_numparse=True,
        colalign=_alignment(table.columns),
    )
    under = [
        rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\footnotesize {_escaped(line)}}} \\" for line in table.lines[1:]
    ]
    text = text.replace(r"\end{tabular}", "\n".join([*under, r"\end{tabular}"]))
    for symbol, command in _LATEX_SYMBOLS.items():
        text = text.replace(symbol, command)
    return "\n".join([r"% needs \usepackage{booktabs}", *(f"% {line}" for line in table.lines[:1]), text, ""])


def _alignment(columns: Sequence[str]) -> list[str]:
    return ["right" if column in NUMERIC_COLUMNS else "left" for column in columns]


def _escaped(text: str) -> str:
    return "".join(f"\\{character}" if character in "&%$#_{}" else character for character in text)
