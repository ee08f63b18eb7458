"""Bits against training operations at a quarter, one and four times each row's budget, as the report shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from dgm.reporting.published import CATALOGUE
from dgm.reporting.rows import attempt
from dgm.reporting.tables import Column, Table, columns_csv, make_table, number, three_digits
from dgm.runs.files import BUDGETS, ROW_BUDGET, BudgetFiles
from dgm.runs.scaling_records import ScalingPoint, read_scaling_point

UNIT_NOTE = (
    "Bits per sub-pixel of validation images, smaller is better; ≤ marks a bound. All figures are of the same images. "
    "PFLOP: 10^15 floating-point operations of the row's own training. Error: one standard error over images; most of "
    "it is common to all figures."
)
IN_WORDS = {"quarter": "a quarter", "one": "one", "four": "four times"}
Points = Mapping[str, ScalingPoint]  # budget -> what was measured


@dataclass(frozen=True)
class Scaling:
    """What was measured with code and numbers as they are now.

    `models`: by model, in the order of the last figure that each has, the best first. `stale`: one entry for each
    record that is of other code or numbers, and is left out.
    """

    models: Mapping[str, Points]
    stale: tuple[str, ...] = ()


NOTHING = Scaling({})


def read_scaling(profile: str, current_keys: Mapping[tuple[str, str], str], root: Path, faults: list[str]) -> Scaling:
    """The records of a profile; a damaged one is left out, and `faults` is told.

    current_keys: (model, budget) -> the key that a record of now would carry.
    """
    found: dict[str, dict[str, ScalingPoint]] = {}
    stale: list[str] = []
    for budget in BUDGETS:
        folder = BudgetFiles(profile, "", root, budget).scaling.parent
        for model in sorted(path.stem for path in folder.glob("*.json")):
            files = BudgetFiles(profile, model, root, budget)
            point = attempt(lambda files=files: read_scaling_point(files), faults)
            if point is None:
                continue
            if point.key != current_keys.get((model, budget)):
                stale.append(f"{shown_name(model)} ({IN_WORDS[budget]})")
            else:
                found.setdefault(model, {})[budget] = point
    ranked = sorted(found, key=lambda model: (last(found[model]).validation_bits_per_subpixel, model))
    return Scaling({model: found[model] for model in ranked}, tuple(sorted(stale)))


def last(points: Points) -> ScalingPoint:
    """Of the largest budget."""
    return max(points.values(), key=lambda point: BUDGETS[point.budget])


def shown_name(model: str) -> str:
    """As the tables print it."""
    return CATALOGUE[model].name if model in CATALOGUE else model


def _bits(budget: str) -> Callable[[Points], str]:
    def cell(points: Points) -> str:
        point = points.get(budget)
        return "" if point is None else f"{'≤ ' * point.is_bound}{point.validation_bits_per_subpixel:.3f}"

    return cell


def _gained(points: Points) -> float | None:
    if "quarter" not in points or "four" not in points:
        return None
    return points["quarter"].validation_bits_per_subpixel - points["four"].validation_bits_per_subpixel


def _pflop(points: Points) -> float | None:
    return points[ROW_BUDGET].training_flops / 1e15 if ROW_BUDGET in points else None


COLUMNS: tuple[Column[Points], ...] = (
    Column("Model", lambda points: shown_name(last(points).model)),
    Column("A quarter", _bits("quarter"), is_number=True),
    Column("One", _bits(ROW_BUDGET), is_number=True),
    Column("Four times", _bits("four"), is_number=True),
    Column("Gained by 16 times", lambda points: number(_gained(points), 3), is_number=True),
    Column("Error", lambda points: number(last(points).standard_error, 3), is_number=True),
    Column("PFLOP", lambda points: three_digits(_pflop(points)), is_number=True),
    Column("Seconds, all", lambda points: number(sum(p.train_seconds for p in points.values()), 0), is_number=True),
)


def scaling_table(scaling: Scaling) -> Table:
    """One row a model, the best first; an empty cell where nothing was measured."""
    counts = sorted({point.num_images for points in scaling.models.values() for point in points.values()})
    notes = [f"Scored on the first {count:,} validation images." for count in counts]
    if scaling.stale:
        notes.append(f"Left out, for code or numbers have changed since: {', '.join(scaling.stale)}. Run make scaling.")
    return make_table(COLUMNS, scaling.models.values(), UNIT_NOTE, notes)


def scaling_csv(scaling: Scaling) -> str:
    """One line a model and budget, every field at full precision."""

    def field_of(name: str) -> Callable[[ScalingPoint], object]:
        return lambda point: getattr(point, name)

    columns: dict[str, Callable[[ScalingPoint], object]] = {
        "model": lambda point: point.model,
        "name": lambda point: shown_name(point.model),
        "budget": lambda point: point.budget,
        "factor": lambda point: BUDGETS[point.budget],
    }
    columns |= {field.name: field_of(field.name) for field in fields(ScalingPoint) if field.name not in columns}
    return columns_csv(columns, [point for points in scaling.models.values() for point in in_order(points)])


def in_order(points: Points) -> Sequence[ScalingPoint]:
    """From the smallest to the largest budget."""
    return sorted(points.values(), key=lambda point: BUDGETS[point.budget])
