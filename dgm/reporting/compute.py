"""What every training cost, beside what is known of the published one: a machine, time, images, arithmetic, memory."""

from __future__ import annotations

from collections.abc import Sequence

from dgm.reporting.results import RESULT_COLUMNS, all_rows, shown_name, state_notes
from dgm.reporting.rows import Row
from dgm.reporting.tables import Column, Table, columns_csv, make_table, number, three_digits

UNIT_NOTE = (
    "Of training, its validation included. PFLOP: 10^15 floating-point operations, those of an image forward and "
    "backward times the images seen, an addition and a multiplication counted as two; empty for fitted models. "
    "Peak memory is what was allocated on a GPU, or resident on a CPU."
)
PUBLISHED_NOTE = "Published run: what its authors say of it; empty where nothing was found."
CSV_COLUMNS = (
    "model",
    "name",
    "device",
    "train_seconds",
    "images_seen",
    "images_per_second",
    "forward_flops_per_image",
    "training_flops_per_image",
    "training_flops",
    "peak_memory_bytes",
    "published_compute",
)


COLUMNS: tuple[Column[Row], ...] = (
    Column("Model", shown_name),
    Column("Trained on", lambda row: row.provenance.device if row.provenance else ""),
    Column("Seconds", lambda row: number(row.provenance.train_seconds if row.provenance else None, 0), is_number=True),
    Column(
        "Images seen", lambda row: number(row.provenance.images_seen if row.provenance else None, 0), is_number=True
    ),
    Column("Images/s", lambda row: three_digits(row.images_per_second), is_number=True),
    Column("Training PFLOP", lambda row: three_digits(_scaled(row.training_flops, 1e15)), is_number=True),
    Column("Peak GiB", lambda row: number(_scaled(_peak(row), 2**30), 2), is_number=True),
    Column("Published run", lambda row: row.published.published_compute),
)


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _peak(row: Row) -> int | None:
    return row.provenance.peak_memory_bytes if row.provenance else None


def compute_csv(rows: Sequence[Row]) -> str:
    """The rows of the table at full precision, in FLOP and bytes."""
    return columns_csv({name: RESULT_COLUMNS[name] for name in CSV_COLUMNS}, _shown(rows))


def compute_table(rows: Sequence[Row]) -> Table:
    """Models that were trained or whose published training is known, in the order of the table of everything."""
    shown = _shown(rows)
    return make_table(COLUMNS, shown, UNIT_NOTE, (PUBLISHED_NOTE, *state_notes(shown)))


def _shown(rows: Sequence[Row]) -> list[Row]:
    return [row for row in all_rows(rows) if row.provenance is not None or row.published.published_compute]
