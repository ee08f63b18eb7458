"""What other commands read of the tables that a report has written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat
from pydantic.dataclasses import dataclass

from dgm.runs.checked import CHECKED, read_columns
from dgm.runs.fields import Bits, Count, LineOrEmpty, Seconds, Text


@dataclass(frozen=True, config=CHECKED)
class ResultLine:
    """Some columns of results.csv; None or empty for a model without results."""

    model: Text
    name: Text
    likelihood: LineOrEmpty
    kind: Annotated[LineOrEmpty, Field(pattern=r"^(exact|lower_bound|)$")]
    test_bits_per_subpixel: Bits | None
    test_standard_error: Bits | None
    published_test: PositiveFloat | None
    acting_parameters: Count | None
    is_current: bool | None
    tier: LineOrEmpty
    num_decoded_images: Count | None
    alarm: LineOrEmpty


@dataclass(frozen=True, config=CHECKED)
class CostLine:
    """Some columns of compute.csv; None for a model that was not trained here."""

    name: Text
    train_seconds: Seconds | None
    peak_memory_bytes: Count | None


def read_results(path: Path) -> Sequence[ResultLine]:
    """results.csv of a profile. Raises: StageError naming file, line and column."""
    return read_columns(path, ResultLine)


def read_costs(path: Path) -> Sequence[CostLine]:
    """compute.csv of a profile. Raises: StageError naming file, line and column."""
    return read_columns(path, CostLine)
