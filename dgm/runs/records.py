"""What the small files of a run hold: JSON records and CSV tables, written whole and checked when read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from dgm.errors import StageError
from dgm.runs.atomic import write_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CHECKED = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
REMEDY = "delete it and run `dvc repro`"


@checked_dataclass(frozen=True, config=CHECKED)
class CurvePoint:
    """One line of curves/<model>.csv: what was measured after `step` steps. None where it was not measured.

    Training bits are the mean since the point before, validation bits those of the averaged weights. A fitted model
    counts iterations as steps and has no learning rate.
    Raises: ValueError (pydantic's) naming a field that is negative, non-finite or of another type.
    """

    step: NonNegativeInt
    images_seen: NonNegativeInt
    learning_rate: NonNegativeFloat | None
    train_bits_per_subpixel: float | None
    validation_bits_per_subpixel: float | None


CURVE_COLUMNS = tuple(field.name for field in fields(CurvePoint))


@dataclass(frozen=True)
class Metrics:
    """metrics/<model>.json: what evaluation found. Deterministic: no time, no date, no machine.

    The unit of every *_bits_per_subpixel is bits per sub-pixel; smaller is better. `method` is exact, dequantized,
    elbo or importance-weighted (K): how `test_bits_per_subpixel` was reached. Errors are one standard error: of the
    mean over images (standard), and of the mean over noise draws (monte_carlo; None for exact models).
    """

    model: str
    profile: str
    method: str
    kind: str
    test_bits_per_subpixel: float
    test_standard_error: float
    test_monte_carlo_error: float | None
    train_bits_per_subpixel: float
    train_standard_error: float
    elbo_test_bits_per_subpixel: float | None
    terms_bits_per_subpixel: dict[str, float]
    num_test_images: int
    num_train_images: int
    num_draws: int
    num_parameters: int
    code_and_params_key: str


@dataclass(frozen=True)
class Provenance:
    """provenance/<model>.json: who trained the weights, where, how long, with how much arithmetic.

    Differs between machines and days. Floating-point operations of an image, a multiplication and an addition counted
    as two: of the training objective forward, and of a whole training step; None for models that are fitted.
    """

    model: str
    profile: str
    device: str
    train_seconds: float
    images_seen: int
    num_steps: int
    forward_flops_per_image: int | None
    training_flops_per_image: int | None
    mlflow_run_id: str | None
    git_commit: str | None
    git_is_dirty: bool | None
    finished_at: str
    packages: dict[str, str]
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Compression:
    """compression/<model>.json: what the entropy coder really wrote. None where the model has no conditionals."""

    model: str
    profile: str
    compressed_bits_per_subpixel: float | None
    claimed_bits_per_subpixel: float | None
    num_images: int
    file_bytes: int | None
    is_lossless: bool | None
    reason: str


@dataclass(frozen=True)
class ReferenceCodec:
    """One line of codecs.csv: what a general lossless codec needs for the same test images, whole files counted."""

    codec: str
    settings: str
    package: str
    library: str
    file_bits_per_subpixel: float
    joined_bits_per_subpixel: float
    num_images: int


def reference_codecs_csv(codecs: Sequence[ReferenceCodec]) -> str:
    """One line a codec under the names of its fields; numbers read back bit-identical."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(ReferenceCodec))
    writer.writerows(astuple(codec) for codec in codecs)
    return text.getvalue()


def read_reference_codecs(path: Path) -> list[ReferenceCodec]:
    """The codecs in the file's order; none if it is absent. Raises: StageError naming a file that is no such table."""
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))[1:]
        return [
            ReferenceCodec(codec, settings, package, library, float(in_files), float(joined), int(count))
            for codec, settings, package, library, in_files, joined, count in lines
        ]
    except ValueError as error:
        raise StageError(f"{path}: not a table of codecs ({error}); delete it and run `dvc repro`") from None


Record = TypeVar("Record", Metrics, Provenance, Compression)


def write_record(path: Path, record: Metrics | Provenance | Compression) -> None:
    """Writes a record as JSON, whole or not at all."""
    write_text(path, json.dumps(asdict(record), indent=2, sort_keys=False, allow_nan=False) + "\n")


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """The record, or None if the file is absent. Raises: StageError naming a file that is no such record."""
    if not path.exists():
        return None
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError) as error:
        raise StageError(f"{path}: not a {kind.__name__} record ({error}); delete it and run `dvc repro`") from None


Row = TypeVar("Row", bound="DataclassInstance")


def csv_text(kind: type[Row], rows: Sequence[Row]) -> str:
    """One line per row under the names of the fields; None is an empty field; numbers read back bit-identical."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(kind))
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


def read_csv(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of a file that csv_text wrote. Raises: StageError naming file, line and column of what is wrong."""
    columns = [field.name for field in fields(kind)]
    try:
        text = path.read_bytes().decode("utf-8")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except FileNotFoundError:
        raise StageError(f"{path}: absent; run `dvc repro`") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise StageError(f"{path}: not a CSV table ({error}); {REMEDY}") from None
    if not lines or lines[0] != columns:
        found = f"begins with {','.join(lines[0])[:80]!r}" if lines else "is empty"
        raise StageError(f"{path}: {found}, expected the columns {','.join(columns)}; {REMEDY}")
    if not text.endswith("\n"):
        raise StageError(f"{path}: line {len(lines)} is cut off; {REMEDY}")
    return [_row(path, number, kind, columns, line) for number, line in enumerate(lines[1:], start=2)]


def _row(path: Path, number: int, kind: type[Row], columns: Sequence[str], line: Sequence[str]) -> Row:
    if len(line) != len(columns):
        raise StageError(f"{path}: line {number} has {len(line)} fields, expected {len(columns)}; {REMEDY}")
    values = {column: value or None for column, value in zip(columns, line, strict=True)}
    try:
        return TypeAdapter(kind).validate_python(values, strict=False)
    except ValidationError as error:
        raise StageError(f"{path}: line {number}: {first_fault(error)}; {REMEDY}") from None


def first_fault(error: ValidationError) -> str:
    """The first fault that pydantic found: the field, what is wrong, and the value if it is short."""
    fault = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in fault["loc"])
    value = repr(fault["input"])
    return f"{where}: {fault['msg']}" + (f" (got {value})" if len(value) <= 40 else "")


def write_curve(path: Path, points: Sequence[CurvePoint]) -> None:
    """Writes the curve, whole or not at all. A model that is fitted in a single step has no points."""
    write_text(path, csv_text(CurvePoint, points))


def read_curve(path: Path) -> list[CurvePoint]:
    """The points of a curve, in the order of their steps. Raises: StageError naming the file and what is wrong."""
    points = read_csv(path, CurvePoint)
    for number, (before, after) in enumerate(pairwise(points), start=3):
        if after.step <= before.step or after.images_seen < before.images_seen:
            raise StageError(f"{path}: line {number}: step or images_seen does not increase; {REMEDY}")
    return points
