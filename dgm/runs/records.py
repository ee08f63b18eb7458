"""What the small files of a run hold: JSON records and CSV tables, written whole and checked when read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import TypeVar

from dgm.errors import StageError
from dgm.runs.atomic import write_text

CURVE_COLUMNS = (
    "step",
    "images_seen",
    "learning_rate",
    "train_bits_per_subpixel",
    "validation_bits_per_subpixel",
)


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
