"""What the small files of a run hold: JSON records and CSV tables, each value checked when made and when read.

Making a record with a value that cannot be right raises pydantic's ValidationError, a ValueError that names the field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, NonNegativeFloat, model_validator
from pydantic.dataclasses import dataclass

from dgm.errors import StageError
from dgm.runs.atomic import write_text
from dgm.runs.checked import CHECKED, REMEDY, csv_text, read_csv, read_json, write_json
from dgm.runs.fields import (
    Bits,
    Count,
    Likelihood,
    Line,
    LineOrEmpty,
    NumTestImages,
    NumTrainImages,
    PositiveBits,
    PositiveCount,
    Seconds,
    Sha256,
    Term,
    Text,
)
from dgm.small_files import is_there
from dgm.types import CIFAR10, NUM_TEST_IMAGES

SUM_TOLERANCE = 1e-3  # bits: the terms of a bound and their sum are rounded differently on a GPU


@dataclass(frozen=True, config=CHECKED)
class Metrics:
    """metrics/<model>.json: what evaluation found. Deterministic: no time, no date, no machine.

    The unit of every *_bits_per_subpixel is bits per sub-pixel; smaller is better. `likelihood` says how
    `test_bits_per_subpixel` was reached: exact, dequantized, elbo or importance-weighted (K). Errors are one standard
    error: of the mean over images (standard), and of the mean over noise draws (monte_carlo; None for exact models).
    `test_nats_sha256` is the digest of the test images' nats (nats_test.npy), `weights_sha256` that of the weights;
    None if it was not recorded.
    """

    model: Text
    profile: Text
    likelihood: Likelihood
    kind: Annotated[str, Field(pattern=r"^(exact|lower_bound)$")]
    test_bits_per_subpixel: Bits
    test_standard_error: Bits
    test_monte_carlo_error: Bits | None
    train_bits_per_subpixel: Bits
    train_standard_error: Bits
    elbo_test_bits_per_subpixel: Bits | None
    terms_bits_per_subpixel: dict[Text, Term]
    num_test_images: NumTestImages
    num_train_images: NumTrainImages
    num_draws: PositiveCount
    parameters: Count
    code_and_params_key: Text
    test_nats_sha256: Sha256 | None = None
    weights_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Metrics:
        if (self.kind == "exact") != (self.likelihood == "exact"):
            raise ValueError(f"kind is {self.kind}, but likelihood is {self.likelihood}")
        if (self.elbo_test_bits_per_subpixel is not None) != self.likelihood.startswith("importance"):
            raise ValueError(f"elbo_test_bits_per_subpixel does not fit the likelihood {self.likelihood}")
        if self.kind == "exact" and self.test_monte_carlo_error is not None:
            raise ValueError("test_monte_carlo_error of an exact likelihood must be null")
        one = (
            self.test_bits_per_subpixel
            if self.elbo_test_bits_per_subpixel is None
            else self.elbo_test_bits_per_subpixel
        )
        total = sum(self.terms_bits_per_subpixel.values())
        if self.terms_bits_per_subpixel and not math.isclose(total, one, rel_tol=SUM_TOLERANCE, abs_tol=SUM_TOLERANCE):
            raise ValueError(f"terms_bits_per_subpixel add up to {total:.6g}, but the bound is {one:.6g}")
        return self


@dataclass(frozen=True, config=CHECKED)
class Figures:
    """bits/<model>.json: the four values of Metrics that `dvc metrics show` and `dvc exp show` print, in bits.

    Short names, because DVC's table has to fit into 100 characters. `error` is one standard error over test images.
    """

    test: Bits
    train: Bits
    error: Bits
    likelihood: Likelihood


@dataclass(frozen=True, config=CHECKED)
class Provenance:
    """provenance/<model>.json: who trained the weights, where, how long, with how much arithmetic.

    Differs between machines and days. Floating-point operations per image, a multiplication and an addition counted
    as two: of the training objective forward, and of a whole training step; None for models that are fitted.
    training_key: of the code and the numbers that the weights are made by; weights_sha256: of their file; None in a
    record that is older than these fields.
    """

    model: Text
    profile: Text
    device: Text
    train_seconds: Seconds
    images_seen: Count
    num_steps: Count
    forward_flops_per_image: PositiveCount | None
    training_flops_per_image: PositiveCount | None
    mlflow_run_id: Line | None
    git_commit: Line | None
    git_is_dirty: bool | None
    finished_at: Line
    packages: dict[Line, Line]
    peak_memory_bytes: PositiveCount | None
    training_key: Text | None = None
    weights_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Provenance:
        if (self.forward_flops_per_image is None) != (self.training_flops_per_image is None):
            raise ValueError("only one of forward_flops_per_image and training_flops_per_image is null")
        try:
            datetime.fromisoformat(self.finished_at)
        except ValueError:
            raise ValueError("finished_at is not a date and time of ISO 8601") from None
        return self


@dataclass(frozen=True, config=CHECKED)
class Compression:
    """compression/<model>.json: what the entropy coder really wrote. None where the model cannot be coded.

    A bound is coded by bits-back: the claim is the bound with one draw for the same images, and the bits per sub-pixel
    leave out `initial_bits`, which were in the file before the first image and come back after the last one.
    decoded_sha256: of the images that a process decoded which had only the file and the weights. test_nats_sha256: of
    the figures of the test images that the file is a proof of, as in Metrics. code: digest of the code that has run.
    """

    model: Text
    profile: Text
    compressed_bits_per_subpixel: PositiveBits | None
    claimed_bits_per_subpixel: PositiveBits | None
    num_images: Annotated[int, Field(ge=0, le=NUM_TEST_IMAGES)]
    file_bytes: PositiveCount | None
    is_lossless: bool | None
    reason: Line
    initial_bits: Count = 0
    decoded_sha256: Sha256 | None = None
    test_nats_sha256: Sha256 | None = None
    code: Text | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Compression:
        measured = (
            self.compressed_bits_per_subpixel,
            self.claimed_bits_per_subpixel,
            self.file_bytes,
            self.is_lossless,
        )
        is_measured = [value is not None for value in measured]
        if any(is_measured) != all(is_measured) or any(is_measured) != (self.num_images > 0):
            raise ValueError("num_images and what was measured on them do not fit: all of it, or 0 images and null")
        if self.file_bytes is not None and self.compressed_bits_per_subpixel is not None:
            bits = (8 * self.file_bytes - self.initial_bits) / (self.num_images * CIFAR10.num_subpixels)
            if not math.isclose(bits, self.compressed_bits_per_subpixel, rel_tol=1e-9):
                raise ValueError(f"file_bytes are {bits:.6g} bits per sub-pixel of num_images, not those that are said")
        return self


@dataclass(frozen=True, config=CHECKED)
class CurvePoint:
    """One line of curves/<model>.csv: what was measured after `step` steps. None where it was not measured.

    Training bits are the mean since the point before, validation bits those of the averaged weights. A fitted model
    counts iterations as steps and has no learning rate.
    Raises: ValueError (pydantic's) naming a field that is negative, non-finite or of another type.
    """

    step: Count
    images_seen: Count
    learning_rate: NonNegativeFloat | None
    train_bits_per_subpixel: float | None
    validation_bits_per_subpixel: float | None


CURVE_COLUMNS = tuple(field.name for field in fields(CurvePoint))


@dataclass(frozen=True, config=CHECKED)
class ReferenceCodec:
    """One line of codecs.csv: what a general lossless codec needs for the same test images, whole files counted."""

    codec: Text
    settings: LineOrEmpty
    package: Text
    library: Text
    file_bits_per_subpixel: PositiveBits
    joined_bits_per_subpixel: PositiveBits
    num_images: NumTestImages


@dataclass(frozen=True, config=CHECKED)
class Rung:
    """One line of ppca_ladder.csv: PPCA in closed form with `num_components`, on the test images.

    The figure is dequantized, an upper bound on the bits; the error is one standard error of the mean over images.
    em_test_bits_per_subpixel: the same model fitted by EM, on the same images and noise; None if it was not.
    """

    num_components: PositiveCount
    parameters: PositiveCount
    test_bits_per_subpixel: Bits
    test_standard_error: Bits
    num_test_images: NumTestImages
    em_test_bits_per_subpixel: Bits | None


Record = TypeVar("Record", Metrics, Provenance, Compression, Figures)


def write_record(path: Path, record: Metrics | Provenance | Compression | Figures) -> None:
    """Writes a record as JSON, whole or not at all."""
    write_json(path, record)


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """The record, or None if the file is absent. Raises: StageError naming the file and the field that is wrong."""
    return read_json(path, kind) if is_there(path) else None


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


def write_reference_codecs(path: Path, codecs: Sequence[ReferenceCodec]) -> None:
    """Writes codecs.csv, whole or not at all; numbers read back bit-identical."""
    write_text(path, csv_text(ReferenceCodec, codecs))


def read_reference_codecs(path: Path) -> list[ReferenceCodec]:
    """The codecs in the file's order; none if it is absent. Raises: StageError naming file, line and column."""
    codecs = read_csv(path, ReferenceCodec) if is_there(path) else []
    _check_measured_alike(path, len({codec.codec for codec in codecs}), [codec.num_images for codec in codecs])
    return codecs


def write_rungs(path: Path, rungs: Sequence[Rung]) -> None:
    """Writes ppca_ladder.csv, whole or not at all; numbers read back bit-identical."""
    write_text(path, csv_text(Rung, rungs))


def read_rungs(path: Path) -> list[Rung]:
    """The rungs in the file's order, none if it is absent. Raises: StageError naming file, line and column."""
    rungs = read_csv(path, Rung) if is_there(path) else []
    _check_measured_alike(path, len({rung.num_components for rung in rungs}), [rung.num_test_images for rung in rungs])
    return rungs


def _check_measured_alike(path: Path, num_different: int, num_images: Sequence[int]) -> None:
    if not is_there(path):
        return
    if not num_images:
        raise StageError(f"{path}: has no line under its columns; {REMEDY}")
    if num_different < len(num_images) or len(set(num_images)) > 1:
        raise StageError(f"{path}: a line is there twice, or its lines are of different numbers of images; {REMEDY}")


def em_difference(rung: Rung) -> float | None:
    """How far EM's test figure is from that of the closed form, in bits per sub-pixel; None if EM was not run."""
    if rung.em_test_bits_per_subpixel is None:
        return None
    return abs(rung.em_test_bits_per_subpixel - rung.test_bits_per_subpixel)
