"""How noisy the estimates are of figures that depend on random draws: dequantization noise, latents, random steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dgm.reporting.results import all_rows
from dgm.reporting.rows import Row
from dgm.reporting.tables import Column, Table, make_table, number
from dgm.runs.records import Metrics

Line = tuple[Row, Metrics, float]


def noise_table(rows: Sequence[Row]) -> Table:
    """Of the models that were scored in several passes, in the order of the table of everything."""
    columns: tuple[Column[Line], ...] = (
        Column("Model", lambda line: line[0].published.name),
        Column("How reached", lambda line: line[1].likelihood),
        Column("Passes", lambda line: number(line[1].num_draws, 0), is_number=True),
        Column("Monte-Carlo error", lambda line: number(line[2], 5), is_number=True),
        Column("Error over images", lambda line: number(line[1].test_standard_error, 5), is_number=True),
        Column("Noise of one image's value", lambda line: number(_of_one_image(line), 3), is_number=True),
    )
    measured = [(row, row.metrics, row.metrics.test_monte_carlo_error) for row in all_rows(rows) if row.metrics]
    return make_table(columns, [(row, metrics, error) for row, metrics, error in measured if error is not None])


def _of_one_image(line: Line) -> float:
    """Root mean square over images of one standard error of an image's value, the mean over the passes."""
    _, metrics, error = line
    return error * math.sqrt(metrics.num_test_images)
