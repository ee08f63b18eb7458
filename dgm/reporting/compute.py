"""What every training cost, beside what is known of the published one: a machine, time, images, arithmetic, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from dgm.reporting.rows import ResultRow
from dgm.reporting.tables import STALE, STALE_NOTE, Table, all_rows

COMPUTE_COLUMNS = (
    "Model",
    "Trained on",
    "Seconds",
    "Images seen",
    "Images/s",
    "Training PFLOP",
    "Peak GiB",
    "Published run",
)
COMPUTE_NOTES = (
    "Of training, its validation included. PFLOP: 10^15 floating-point operations, those of an image forward and "
    "backward times the images seen, an addition and a multiplication counted as two; empty for fitted models. "
    "Peak memory is what was allocated on a GPU, or resident on a CPU.",
    "Published run: what its authors say of it; empty where nothing was found.",
)
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


def compute_csv(rows: Sequence[ResultRow]) -> str:
    """The rows of the table at full precision, in FLOP and bytes."""
    records = [asdict(row) for row in _shown(rows)]
    return pd.DataFrame(records, columns=list(CSV_COLUMNS), dtype=object).to_csv(index=False, lineterminator="\n")


def compute_table(rows: Sequence[ResultRow]) -> Table:
    """Models that were trained or whose published training is known, in the order of the table of everything."""
    shown = _shown(rows)
    is_stale = any(row.is_current is False for row in shown)
    return Table(COMPUTE_COLUMNS, [_cells(row) for row in shown], (*COMPUTE_NOTES, *([STALE_NOTE] * is_stale)))


def _shown(rows: Sequence[ResultRow]) -> list[ResultRow]:
    return [row for row in all_rows(rows) if row.device is not None or row.published_compute]


def _cells(row: ResultRow) -> list[str]:
    return [
        f"{row.name} {STALE}" if row.is_current is False else row.name,
        row.device or "",
        "" if row.train_seconds is None else f"{row.train_seconds:,.0f}",
        "" if row.images_seen is None else f"{row.images_seen:,}",
        _three_digits(row.images_per_second),
        _three_digits(None if row.training_flops is None else row.training_flops / 1e15),
        "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**30:.2f}",
        row.published_compute,
    ]


def _three_digits(value: float | None) -> str:
    """At most three significant digits, but never fewer than stand before the point."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
