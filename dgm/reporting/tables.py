"""Tables as lists of columns, and the formats they are written in. An empty cell is empty in all of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tabulate import tabulate

_LATEX_SYMBOLS = {"≤": r"$\leq$", "±": r"$\pm$", "†": r"$\dagger$", "‡": r"$\ddagger$", "§": r"\S{}"}
_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_MARKDOWN_SPECIAL = {"<": "&lt;", ">": "&gt;", **{character: f"\\{character}" for character in "\\`*_[]!|~"}}

Item = TypeVar("Item")


@dataclass(frozen=True)
class Column(Generic[Item]):
    """A title, what stands under it for an item, and whether it is a number, which stands on the right."""

    title: str
    cell: Callable[[Item], str]
    is_number: bool = False


@dataclass(frozen=True)
class Table:
    """Cells ready to read under their titles; `unit` says what the numbers are, `notes` what else is to be known."""

    titles: tuple[str, ...]
    is_number: tuple[bool, ...]
    cells: tuple[tuple[str, ...], ...]
    unit: str = ""
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """What belongs under the table, the unit first."""
        return (self.unit, *self.notes) if self.unit else self.notes


def make_table(
    columns: Sequence[Column[Item]], items: Iterable[Item], unit: str = "", notes: Iterable[str] = ()
) -> Table:
    """One row per item, in their order."""
    return Table(
        titles=tuple(column.title for column in columns),
        is_number=tuple(column.is_number for column in columns),
        cells=tuple(tuple(column.cell(item) for column in columns) for item in items),
        unit=unit,
        notes=tuple(notes),
    )


def number(value: float | None, places: int) -> str:
    """With `places` digits after the point and commas between thousands; empty for None."""
    return "" if value is None else f"{value:,.{places}f}"


def three_digits(value: float | None) -> str:
    """At most three significant digits, but never fewer than stand before the point; empty for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def columns_csv(columns: Mapping[str, Callable[[Item], object]], items: Iterable[Item]) -> str:
    """A CSV text with one line per item; None is an empty field, and numbers read back bit-identical."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([value(item) for value in columns.values()] for item in items)
    return text.getvalue()


def markdown(table: Table) -> str:
    """A Markdown table with its lines under it."""
    cells = [[_replaced(cell, _MARKDOWN_SPECIAL) for cell in row] for row in table.cells]
    text = tabulate(
        cells, list(table.titles), tablefmt="pipe", disable_numparse=True, colalign=_alignment(table, len(cells))
    )
    return "\n\n".join([text, *(_replaced(line, _MARKDOWN_SPECIAL) for line in table.lines)]) + "\n"


def latex(table: Table) -> str:
    """A booktabs tabular for a table environment; the unit as a comment, the notes under the table."""
    cells = [[_latex(cell) for cell in row] for row in table.cells]
    titles = [_latex(title) for title in table.titles]
    text = tabulate(cells, titles, tablefmt="latex_raw", disable_numparse=True, colalign=_alignment(table, len(cells)))
    rules = iter((r"\toprule", r"\midrule", r"\bottomrule"))
    text = "\n".join(next(rules) if line == r"\hline" else line for line in text.splitlines())
    width = len(table.titles)
    under = [rf"\multicolumn{{{width}}}{{l}}{{\footnotesize {_latex(note)}}} \\" for note in table.notes]
    text = text.replace(r"\end{tabular}", "\n".join([*under, r"\end{tabular}"]))
    unit = [f"% {_replaced(table.unit, _LATEX_SYMBOLS)}"] if table.unit else []
    return "\n".join([r"% needs \usepackage{booktabs}", *unit, text, ""])


def _alignment(table: Table, num_rows: int) -> list[str] | None:
    """tabulate takes no alignment for a table without rows."""
    return ["right" if is_number else "left" for is_number in table.is_number] if num_rows else None


def _latex(text: str) -> str:
    return _replaced(text, _LATEX_SPECIAL | _LATEX_SYMBOLS)


def _replaced(text: str, by: Mapping[str, str]) -> str:
    """In one pass, so that nothing is replaced twice; line ends become spaces."""
    return "".join(by.get(character, character) for character in " ".join(text.splitlines()))
