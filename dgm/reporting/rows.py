"""Run files -> one row a model: what was measured, beside what was published. No model is ever run here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np

from dgm.errors import StageError
from dgm.reporting.curves import read_curve, validation_ends
from dgm.reporting.published import CATALOGUE, PublishedRow
from dgm.runs.atomic import read_array
from dgm.runs.files import RunFiles
from dgm.runs.records import Compression, Metrics, Provenance, read_record
from dgm.types import CIFAR10, ImageSpec
from dgm.units import nats_to_bits_per_subpixel

LOWER_BOUND = "lower_bound"


@dataclass(frozen=True)
class ResultRow:
    """One row of results.csv, in the order of its columns. None is an empty cell: nothing measured or published.

    `kind` is exact or lower_bound (of the log-likelihood, so the bits are an upper bound). `compressed_` and
    `claimed_bits_per_subpixel` are of the `num_compressed_images` images that were really written to a file.
    `start_` and `final_validation_bits_per_subpixel`, of gradient-trained models only, are from before any step and
    from the end of training.
    `images_per_second`, over the whole training and its validation, and the floating-point operations are of models
    that learn by gradient; `training_flops` are those of all images seen, forward and backward.
    `published_compute` is what is known of the published training and from where, empty if nothing.
    `is_current` is False where code or parameters have changed since the model was scored.
    """

    model: str
    name: str
    family: str
    likelihood: str | None
    kind: str | None
    test_bits_per_subpixel: float | None
    test_standard_error: float | None
    test_monte_carlo_error: float | None
    elbo_test_bits_per_subpixel: float | None
    train_bits_per_subpixel: float | None
    train_standard_error: float | None
    num_test_images: int | None
    published_test: float | None
    published_train: float | None
    published_source: str
    parameters: int | None
    start_validation_bits_per_subpixel: float | None
    final_validation_bits_per_subpixel: float | None
    train_seconds: float | None
    images_seen: int | None
    images_per_second: float | None
    device: str | None
    forward_flops_per_image: int | None
    training_flops_per_image: int | None
    training_flops: int | None
    peak_memory_bytes: int | None
    published_compute: str
    compressed_bits_per_subpixel: float | None
    claimed_bits_per_subpixel: float | None
    num_compressed_images: int | None
    is_lossless: bool | None
    is_current: bool | None
    mlflow_run_id: str | None
    git_commit: str | None
    git_is_dirty: bool | None
    finished_at: str | None


@dataclass(frozen=True)
class BoundTerm:
    """Bits per sub-pixel of the test images that one part of the one-sample bound costs: the parts add up to it."""

    model: str
    term: str
    bits_per_subpixel: float


RESULT_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(ResultRow))


@dataclass(frozen=True)
class PairedDifference:
    """Bits per sub-pixel that `model_a` saves over `model_b` on the same test images: mean and its standard error.

    None where the two were scored on different numbers of images.
    """

    model_a: str
    model_b: str
    difference_bits_per_subpixel: float | None
    standard_error: float | None
    num_images: int | None


def result_rows(profile: str, current_keys: Mapping[str, str], root: Path = Path(".")) -> list[ResultRow]:
    """Every model of the catalogue in its order, then every other model that has a result, by name.

    `current_keys` maps a model to the key that a result computed now would carry.
    Raises: StageError naming the file that is damaged or of another model.
    """
    measured = sorted(path.stem for path in RunFiles(profile, "", root).metrics.parent.glob("*.json"))
    models = [*CATALOGUE, *(model for model in measured if model not in CATALOGUE)]
    return [_result_row(RunFiles(profile, model, root), current_keys.get(model)) for model in models]


def _result_row(files: RunFiles, current_key: str | None) -> ResultRow:
    published = CATALOGUE.get(files.model, PublishedRow(files.model, files.model, "", None, None, ""))
    metrics = _checked(files.metrics, Metrics, files)
    provenance = _checked(files.provenance, Provenance, files) if metrics else None
    compression = _checked(files.compression, Compression, files) if metrics else None
    start, final = validation_ends(read_curve(files.curve)) if metrics and files.curve.exists() else (None, None)
    if metrics:
        _check_numbers(files.metrics, metrics)
    return ResultRow(
        model=files.model,
        name=published.name,
        family=published.family,
        likelihood=metrics and metrics.method,
        kind=metrics and metrics.kind,
        test_bits_per_subpixel=metrics and metrics.test_bits_per_subpixel,
        test_standard_error=metrics and metrics.test_standard_error,
        test_monte_carlo_error=metrics and metrics.test_monte_carlo_error,
        elbo_test_bits_per_subpixel=metrics and metrics.elbo_test_bits_per_subpixel,
        train_bits_per_subpixel=metrics and metrics.train_bits_per_subpixel,
        train_standard_error=metrics and metrics.train_standard_error,
        num_test_images=metrics and metrics.num_test_images,
        published_test=published.published_test,
        published_train=published.published_train,
        published_source=published.published_source,
        parameters=metrics and metrics.num_parameters,
        start_validation_bits_per_subpixel=start,
        final_validation_bits_per_subpixel=final,
        train_seconds=provenance and provenance.train_seconds,
        images_seen=provenance and provenance.images_seen,
        images_per_second=_images_per_second(provenance),
        device=provenance and provenance.device,
        forward_flops_per_image=provenance and provenance.forward_flops_per_image,
        training_flops_per_image=provenance and provenance.training_flops_per_image,
        training_flops=_training_flops(provenance),
        peak_memory_bytes=provenance and provenance.peak_memory_bytes,
        published_compute=published.published_compute,
        compressed_bits_per_subpixel=compression and compression.compressed_bits_per_subpixel,
        claimed_bits_per_subpixel=compression and compression.claimed_bits_per_subpixel,
        num_compressed_images=compression and (compression.num_images or None),
        is_lossless=compression and compression.is_lossless,
        is_current=metrics and metrics.code_and_params_key == current_key,
        mlflow_run_id=provenance and provenance.mlflow_run_id,
        git_commit=provenance and provenance.git_commit,
        git_is_dirty=provenance and provenance.git_is_dirty,
        finished_at=provenance and provenance.finished_at,
    )


def _images_per_second(provenance: Provenance | None) -> float | None:
    if provenance is None or provenance.training_flops_per_image is None:
        return None
    return provenance.images_seen / provenance.train_seconds


def _training_flops(provenance: Provenance | None) -> int | None:
    if provenance is None or provenance.training_flops_per_image is None:
        return None
    return provenance.training_flops_per_image * provenance.images_seen


Record = TypeVar("Record", Metrics, Provenance, Compression)


def _checked(path: Path, kind: type[Record], files: RunFiles) -> Record | None:
    try:
        record = read_record(path, kind)
    except ValueError as error:
        raise StageError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    if record is not None and (record.model, record.profile) != (files.model, files.profile):
        raise StageError(
            f"{path}: says it is of {record.model} ({record.profile}), not of {files.model} ({files.profile}); "
            "delete it and run `dvc repro`"
        )
    return record


def _check_numbers(path: Path, metrics: Metrics) -> None:
    for name in ("test_bits_per_subpixel", "test_standard_error", "train_bits_per_subpixel", "train_standard_error"):
        value = getattr(metrics, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise StageError(f"{path}: {name} is {value!r}, not a finite number; delete it and run `dvc repro`")


def bound_terms(rows: Sequence[ResultRow], profile: str, root: Path = Path(".")) -> list[BoundTerm]:
    """Every part of every bound that says what it is the sum of, in the order of `rows` and of the sum.

    Raises: StageError naming a metrics file in which the parts are no numbers.
    """
    terms: list[BoundTerm] = []
    for row in rows:
        path = RunFiles(profile, row.model, root).metrics
        metrics = read_record(path, Metrics)
        for term, bits in (metrics.terms_bits_per_subpixel if metrics else {}).items():
            if isinstance(bits, bool) or not isinstance(bits, (int, float)) or not math.isfinite(bits):
                raise StageError(f"{path}: {term} is {bits!r}, not a finite number; delete it and run `dvc repro`")
            terms.append(BoundTerm(row.model, term, float(bits)))
    return terms


def paired_differences(
    rows: Sequence[ResultRow], profile: str, root: Path = Path("."), spec: ImageSpec = CIFAR10
) -> list[PairedDifference]:
    """Neighbours in the ranking by test figure, better first, among the models whose per-image nats are here.

    The spread over images is common to all models, so that a difference is far surer than either figure.
    """
    ranked = sorted((row.test_bits_per_subpixel, row.model) for row in rows if row.test_bits_per_subpixel is not None)
    paths = [(model, RunFiles(profile, model, root).nats("test")) for _, model in ranked]
    here = [(model, read_array(path, "run `dvc repro`")) for model, path in paths if path.exists()]
    return [_difference(*better, *worse, spec) for better, worse in pairwise(here)]


def _difference(
    model_a: str, nats_a: np.ndarray, model_b: str, nats_b: np.ndarray, spec: ImageSpec
) -> PairedDifference:
    if nats_a.shape != nats_b.shape or len(nats_a) < 2:
        return PairedDifference(model_a, model_b, None, None, None)
    saved = nats_to_bits_per_subpixel(nats_a - nats_b, spec)
    error = float(saved.std(ddof=1)) / math.sqrt(len(saved))
    return PairedDifference(model_a, model_b, float(saved.mean()), error, len(saved))
