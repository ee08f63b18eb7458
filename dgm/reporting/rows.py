"""Run files -> one row per model: what was measured, beside what was published. No model is ever run here.

A damaged file must not take the other models down: what it says is left empty, its row is marked, and `faults` names
the file and what is wrong. The report stage prints the faults and fails after it has written the report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import dataclasses as checked_dataclasses

from dgm.errors import StageError
from dgm.reporting.consistency import Expected, check_claim, check_origin, check_settings, check_shown
from dgm.reporting.published import CATALOGUE, PublishedRow
from dgm.runs.checked import CHECKED, REMEDY, own
from dgm.runs.files import RunFiles
from dgm.runs.nats import check_figures, own_nats
from dgm.runs.proof_records import Conformance, TestSetProof, read_proof
from dgm.runs.records import Compression, CurvePoint, Figures, Metrics, Provenance, read_curve, read_record
from dgm.small_files import is_there
from dgm.types import CIFAR10, ImageSpec
from dgm.units import nats_to_bits_per_subpixel

Value = TypeVar("Value")


@dataclass(frozen=True)
class ProofCodes:
    """Digests of the code that proofs computed now would have run: of the entropy coder, and of the checks."""

    compress: str
    prove: str


NO_CODES = ProofCodes("", "")  # of a model that nothing here can run: no proof of it is current


@dataclass(frozen=True)
class Row:
    """One model: the records of its run as they were read, each None if it is absent or damaged.

    `conformance` and `proof` are what was proven, by whichever code; `codes` is the code of now.
    `curve` is empty where training left none. `is_current` is False where code or parameters have changed since the
    model was scored, and None without a result. `faults` says, one line per file, what is damaged. `acting_parameters`:
    those that can change an output, None where it is not known. `alarm`: why the figure is too good to be believed as
    it stands (tiers.py). `nats`: of every test image, (N,), None where they are not here or not those of the figure.
    """

    published: PublishedRow
    metrics: Metrics | None = None
    provenance: Provenance | None = None
    compression: Compression | None = None
    conformance: Conformance | None = None
    proof: TestSetProof | None = None
    codes: ProofCodes = NO_CODES
    curve: Sequence[CurvePoint] = ()
    is_current: bool | None = None
    faults: tuple[str, ...] = ()
    acting_parameters: int | None = None
    alarm: str | None = None
    nats: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def model(self) -> str:
        """The registry's name."""
        return self.published.key

    @property
    def test_bits(self) -> float | None:
        """Bits per sub-pixel of the test images; None without a result."""
        return self.metrics.test_bits_per_subpixel if self.metrics else None

    @property
    def validation_ends(self) -> tuple[float | None, float | None]:
        """Bits per sub-pixel of the validation images before the first step and at the last measurement.

        None where it was not measured: fitted models have no validation.
        """
        measured = [point for point in self.curve if point.validation_bits_per_subpixel is not None]
        if not measured or self.metrics is None:
            return None, None
        start = measured[0].validation_bits_per_subpixel if measured[0].step == 0 else None
        return start, measured[-1].validation_bits_per_subpixel

    @property
    def images_per_second(self) -> float | None:
        """Over the whole training and its validation; None for models that do not learn by gradient."""
        cost = self.provenance
        return None if cost is None or cost.training_flops_per_image is None else cost.images_seen / cost.train_seconds

    @property
    def training_flops(self) -> int | None:
        """Of all images seen, forward and backward; None for models that do not learn by gradient."""
        cost = self.provenance
        if cost is None or cost.training_flops_per_image is None:
            return None
        return cost.training_flops_per_image * cost.images_seen


@dataclass(frozen=True)
class BoundTerm:
    """One part of a bound, in bits per sub-pixel of the test images; the parts of a model add up to its elbo."""

    model: str
    term: str
    bits_per_subpixel: float


@checked_dataclasses.dataclass(frozen=True, config=CHECKED)
class PairedDifference:
    """Bits per sub-pixel that `model_a` saves over `model_b` on the same test images: mean and its standard error.

    None where the two were scored on different numbers of images.
    """

    model_a: str
    model_b: str
    difference_bits_per_subpixel: float | None
    standard_error: float | None
    num_images: int | None


def result_rows(
    profile: str,
    current_keys: Mapping[str, str],
    root: Path = Path("."),
    proof_codes: Mapping[str, ProofCodes] | None = None,
    expected: Mapping[str, Expected] | None = None,
    spec: ImageSpec = CIFAR10,
) -> list[Row]:
    """Every model of the catalogue in its order, then every other model that has metrics or a curve, by name.

    `current_keys` maps a model to the key that a result computed now would carry, `proof_codes` to the digests that
    a proof would, `expected` to what its records would say.
    """
    codes, said = proof_codes or {}, expected or {}
    files = RunFiles(profile, "", root)
    found = {path.stem for path in (*files.metrics.parent.glob("*.json"), *files.curve.parent.glob("*.csv"))}
    models = [*CATALOGUE, *sorted(found - set(CATALOGUE))]
    return [
        result_row(
            RunFiles(profile, model, root),
            current_keys.get(model),
            codes.get(model, NO_CODES),
            said.get(model),
            spec,
        )
        for model in models
    ]


def result_row(
    files: RunFiles,
    current_key: str | None,
    codes: ProofCodes,
    expected: Expected | None = None,
    spec: ImageSpec = CIFAR10,
) -> Row:
    """One model. Arguments: as `result_rows`, of this model."""
    published = CATALOGUE.get(files.model, PublishedRow(files.model, files.model, "", None, None, ""))
    faults: list[str] = []
    metrics = attempt(lambda: own(files.metrics, read_record(files.metrics, Metrics), files), faults)
    provenance = attempt(lambda: own(files.provenance, read_record(files.provenance, Provenance), files), faults)
    compression = attempt(lambda: own(files.compression, read_record(files.compression, Compression), files), faults)
    conformance = attempt(lambda: own(files.conformance, read_proof(files.conformance, Conformance), files), faults)
    proof = attempt(lambda: own(files.proof, read_proof(files.proof, TestSetProof), files), faults)
    curve = attempt(lambda: _whole_curve(files.curve, provenance), faults) or ()
    is_current = metrics is not None and metrics.code_and_params_key == current_key
    expected = expected if is_current else None
    nats = attempt(lambda: _nats(files, metrics), faults)
    metrics = _kept(metrics, lambda record: _check_metrics(files, record, nats, expected, spec), faults)
    if metrics is None:
        return Row(published, codes=codes, curve=curve, faults=tuple(faults))
    key = expected.training_key if expected else None
    provenance = _kept(provenance, lambda record: check_origin(files.provenance, record, metrics, key), faults)
    compression = _kept(compression, lambda record: check_claim(files.compression, record, metrics, nats, spec), faults)
    proof = _kept(proof, lambda record: check_claim(files.proof, record, metrics, nats, spec), faults)
    return Row(
        published,
        metrics,
        provenance=provenance,
        compression=compression,
        conformance=conformance,
        proof=proof,
        codes=codes,
        curve=curve,
        is_current=is_current,
        faults=tuple(faults),
        nats=nats,
    )


def _nats(files: RunFiles, metrics: Metrics | None) -> np.ndarray | None:
    path = files.nats("test")
    return own_nats(path, metrics) if metrics is not None and is_there(path) else None


def _check_metrics(
    files: RunFiles, metrics: Metrics, nats: np.ndarray | None, expected: Expected | None, spec: ImageSpec
) -> None:
    """Raises: StageError if other files of the run, or the settings, say that the metrics are wrong."""
    if nats is not None:
        check_figures(files.metrics, metrics, nats, spec)
    if (figures := read_record(files.figures, Figures)) is not None:
        check_shown(files.metrics, metrics, figures)
    if expected is not None:
        check_settings(files.metrics, metrics, expected)


def _kept(record: Value | None, check: Callable[[Value], None], faults: list[str]) -> Value | None:
    """The record if the check raises nothing; otherwise None, and `faults` is told the reason."""

    def checked() -> Value | None:
        if record is not None:
            check(record)
        return record

    return attempt(checked, faults)


def attempt(read: Callable[[], Value], faults: list[str]) -> Value | None:
    """What `read` returns; None, with the reason added to `faults`, if the file is damaged."""
    try:
        return read()
    except StageError as error:
        faults.append(str(error))
        return None


def _whole_curve(path: Path, provenance: Provenance | None) -> list[CurvePoint]:
    if not is_there(path):
        return []
    points = read_curve(path)
    last = points[-1].step if points else 0
    if provenance is not None and last != provenance.num_steps:
        raise StageError(f"{path}: ends at step {last}, but training took {provenance.num_steps} steps; {REMEDY}")
    return points


def bound_terms(rows: Sequence[Row]) -> list[BoundTerm]:
    """Every part of every bound that says what it is the sum of, in the order of `rows` and of the sum."""
    return [
        BoundTerm(row.model, term, bits)
        for row in rows
        if row.metrics
        for term, bits in row.metrics.terms_bits_per_subpixel.items()
    ]


def paired_differences(rows: Sequence[Row], spec: ImageSpec = CIFAR10) -> list[PairedDifference]:
    """Neighbours in the ranking by test figure, better first, among the models whose per-image nats are here.

    The spread over images is common to all models, so that a difference is far surer than either figure.
    """
    ranked = sorted((row.metrics.test_bits_per_subpixel, row.model, row.nats) for row in rows if row.metrics)
    here = [(model, nats) for _, model, nats in ranked if nats is not None]
    return [_difference(*better, *worse, spec) for better, worse in pairwise(here)]


def _difference(
    model_a: str, nats_a: np.ndarray, model_b: str, nats_b: np.ndarray, spec: ImageSpec
) -> PairedDifference:
    if nats_a.shape != nats_b.shape or len(nats_a) < 2:
        return PairedDifference(model_a, model_b, None, None, None)
    saved = nats_to_bits_per_subpixel(nats_a - nats_b, spec)
    error = float(saved.std(ddof=1)) / math.sqrt(len(saved))
    return PairedDifference(model_a, model_b, float(saved.mean()), error, len(saved))
