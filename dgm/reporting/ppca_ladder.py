"""PPCA over its number of components, as the report shows it."""

from __future__ import annotations

from collections.abc import Sequence

from dgm.reporting.tables import Column, Table, make_table
from dgm.runs.records import Rung, em_difference
from dgm.types import NUM_TEST_IMAGES

COLUMNS: tuple[Column[Rung], ...] = (
    Column("Components", lambda rung: f"{rung.num_components:,}", is_number=True),
    Column("Parameters", lambda rung: f"{rung.parameters:,}", is_number=True),
    Column(
        "Closed form, test",
        lambda rung: f"≤ {rung.test_bits_per_subpixel:.5f} ± {rung.test_standard_error:.5f}",
        is_number=True,
    ),
    Column(
        "EM, test",
        lambda rung: "" if rung.em_test_bits_per_subpixel is None else f"≤ {rung.em_test_bits_per_subpixel:.5f}",
        is_number=True,
    ),
)


def rungs_table(rungs: Sequence[Rung]) -> Table:
    """The ladder, ready to read, to the fifth decimal, where closed form and EM are to be compared.

    The notes say by how much the two differ at most, and on how few images they are scored, if not on all.
    """
    differences = [difference for rung in rungs if (difference := em_difference(rung)) is not None]
    notes = [f"EM and the closed form differ by at most {max(differences):.6f} bits."] if differences else []
    counts = sorted({rung.num_test_images for rung in rungs} - {NUM_TEST_IMAGES})
    notes += [f"Scored on only {count:,} of the {NUM_TEST_IMAGES:,} test images." for count in counts]
    return make_table(COLUMNS, rungs, notes=notes)
