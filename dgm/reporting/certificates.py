"""Models of other people, as `dgm prove` found them: a table of its own."""

from __future__ import annotations

from collections.abc import Sequence

from dgm.reporting.tables import Column, Table, make_table, number
from dgm.runs.certificates import FAILS, HOLDS, IMPOSSIBLE, Certificate


def certificates_table(certificates: Sequence[Certificate]) -> Table:
    """One row per certificate, smallest figure first, those without a figure last."""
    columns: tuple[Column[Certificate], ...] = (
        Column("Model", lambda found: found.name),
        Column("Bits", _bits, is_number=True),
        Column("How reached", lambda found: found.likelihood),
        Column("Scored on", _scored),
        Column("Proven", lambda found: found.tier),
        Column("Checks", _marks),
        Column("Parameters", lambda found: number(found.parameters, 0), is_number=True),
        Column("Weights", lambda found: found.weights[:10]),
    )
    return make_table(columns, sorted(certificates, key=_rank))


def _rank(found: Certificate) -> tuple[bool, float]:
    bits = found.bits_per_subpixel
    return bits is None, bits or 0.0


def _bits(found: Certificate) -> str:
    if found.bits_per_subpixel is None:
        return ""
    bound = "" if found.likelihood in ("exact", "claimed") else "≤ "
    error = "" if found.standard_error is None else f" ± {number(found.standard_error, 3)}"
    return f"{bound}{number(found.bits_per_subpixel, 3)}{error}"


def _scored(found: Certificate) -> str:
    return f"{found.num_scored:,} {found.images}" if found.num_scored else "nothing"


def _marks(found: Certificate) -> str:
    """How many checks ended how; by name those that fail."""
    counts = [(mark, sum(line.mark == mark for line in found.checks)) for mark in (HOLDS, FAILS, IMPOSSIBLE)]
    failed = ", ".join(line.check for line in found.checks if line.mark == FAILS)
    return " ".join(f"{count} {mark}" for mark, count in counts if count) + (f" ({failed})" if failed else "")
