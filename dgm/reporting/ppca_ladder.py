"""PPCA over its number of components: the table that its stage writes, and how the report shows it. No torch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from dgm.errors import StageError
from dgm.reporting.tables import NUM_TEST_IMAGES, Table
from dgm.runs.atomic import write_table
from dgm.runs.files import RunFiles

SHOWN_COLUMNS = ("Components", "Parameters", "Closed form, test", "EM, test")


@dataclass(frozen=True)
class Rung:
    """One line of ppca_ladder.csv: PPCA in closed form with `num_components`, on the test images.

    The figure is dequantized, an upper bound on the bits; the error is one standard error of the mean over images.
    em_test_bits_per_subpixel: the same model fitted by EM, on the same images and noise; None if it was not.
    """

    num_components: int
    parameters: int
    test_bits_per_subpixel: float
    test_standard_error: float
    num_test_images: int
    em_test_bits_per_subpixel: float | None


COLUMNS = tuple(field.name for field in fields(Rung))


def ladder_file(profile: str, root: Path = Path(".")) -> Path:
    return RunFiles(profile, "ppca", root).report / "ppca_ladder.csv"


def write_rungs(path: Path, rungs: Sequence[Rung]) -> None:
    """A CSV file under COLUMNS; numbers read back bit-identical."""
    write_table(path, COLUMNS, [astuple(rung) for rung in rungs])


def read_rungs(path: Path) -> list[Rung]:
    """The rungs in the file's order, none if it is absent. Raises: StageError naming a file that is no such table."""
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        if tuple(header) != COLUMNS:
            raise ValueError(f"its columns are {', '.join(header)}")
        return [
            Rung(int(q), int(parameters), float(bits), float(error), int(count), float(em) if em else None)
            for q, parameters, bits, error, count, em in lines
        ]
    except (ValueError, csv.Error) as error:
        raise StageError(f"{path}: not a ladder of components ({error}); delete it and run `dvc repro`") from None


def rungs_table(rungs: Sequence[Rung]) -> Table:
    """The ladder, ready to read, to the fifth decimal, where closed form and EM are to be compared.

    The lines under it say by how much the two differ at most, and on how few images they are scored, if not on all.
    """
    cells = [
        [
            f"{rung.num_components:,}",
            f"{rung.parameters:,}",
            f"≤ {rung.test_bits_per_subpixel:.5f} ± {rung.test_standard_error:.5f}",
            "" if rung.em_test_bits_per_subpixel is None else f"≤ {rung.em_test_bits_per_subpixel:.5f}",
        ]
        for rung in rungs
    ]
    differences = [difference for rung in rungs if (difference := em_difference(rung)) is not None]
    lines = [f"EM and the closed form differ by at most {max(differences):.6f} bits."] if differences else []
    counts = sorted({rung.num_test_images for rung in rungs} - {NUM_TEST_IMAGES})
    lines += [f"Scored on only {count:,} of the {NUM_TEST_IMAGES:,} test images." for count in counts]
    return Table(SHOWN_COLUMNS, cells, lines)


def em_difference(rung: Rung) -> float | None:
    """How far EM's test figure is from that of the closed form, in bits per sub-pixel; None if EM was not run."""
    if rung.em_test_bits_per_subpixel is None:
        return None
    return abs(rung.em_test_bits_per_subpixel - rung.test_bits_per_subpixel)
