"""Do the records of a run fit each other, the nats and the settings? What contradicts them is left out and named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dgm.errors import StageError
from dgm.runs.checked import REMEDY
from dgm.runs.nats import SAME
from dgm.runs.proof_records import TestSetProof
from dgm.runs.records import Compression, Figures, Metrics, Provenance, ReferenceCodec, Rung
from dgm.types import CIFAR10, ImageSpec
from dgm.units import nats_to_bits_per_subpixel


@dataclass(frozen=True)
class Expected:
    """What the records of a model say if they are of the code and the numbers of now.

    training_key: of its weights. likelihood: how its figure is reached. num_draws: the passes over noise.
    """

    training_key: str
    likelihood: str
    parameters: int
    num_test_images: int
    num_train_images: int
    num_draws: int


@dataclass(frozen=True)
class ExpectedTables:
    """What the tables of no model hold if they are of the numbers of now; None or empty: not known.

    components, em_components: of the rungs of PPCA, in their order, and those that EM is run for too.
    """

    codecs: Sequence[str] = ()
    num_codec_images: int | None = None
    components: Sequence[int] = ()
    em_components: Sequence[int] = field(default=())
    num_ladder_images: int | None = None


NO_TABLES = ExpectedTables()


def check_settings(path: Path, metrics: Metrics, expected: Expected) -> None:
    """Of metrics with the key of now. Raises: StageError naming the field that another setting would have given."""
    for name in ("likelihood", "parameters", "num_test_images", "num_train_images", "num_draws"):
        said, here = getattr(metrics, name), getattr(expected, name)
        if said != here:
            raise StageError(f"{path}: {name} is {said}, but by its key it has to be {here}; {REMEDY}")


def check_shown(path: Path, metrics: Metrics, figures: Figures) -> None:
    """Of bits/<model>.json. Raises: StageError naming `path`, that of the metrics, if the two differ."""
    for name, said, there in (
        ("test_bits_per_subpixel", metrics.test_bits_per_subpixel, figures.test),
        ("train_bits_per_subpixel", metrics.train_bits_per_subpixel, figures.train),
        ("test_standard_error", metrics.test_standard_error, figures.error),
        ("likelihood", metrics.likelihood, figures.likelihood),
    ):
        if said != there:
            raise StageError(f"{path}: {name} is {said}, but bits/{path.name} says {there}; {REMEDY}")


def check_origin(path: Path, provenance: Provenance, metrics: Metrics, training_key: str | None) -> None:
    """Of the provenance beside metrics. Raises: StageError naming `path` if it is of another training.

    training_key: of the weights that the metrics are of, if it is known. What is not recorded is not compared.
    """
    for name, said, theirs in (
        ("training_key", provenance.training_key, training_key),
        ("weights_sha256", provenance.weights_sha256, metrics.weights_sha256),
    ):
        if said is not None and theirs is not None and said != theirs:
            raise StageError(
                f"{path}: of another training than the metrics: {name} is {said[:16]}, theirs is {theirs[:16]}; run "
                f"`python -m stages.evaluate --model {provenance.model} --profile {provenance.profile}`"
            )


def check_claim(
    path: Path, record: Compression | TestSetProof, metrics: Metrics, nats: np.ndarray | None, spec: ImageSpec = CIFAR10
) -> None:
    """Of a file's record that is a proof of these metrics, of an exact figure: what it says the model claims.

    Raises: StageError naming `path` if the nats of the same images give another figure.
    """
    claimed = record.claimed_bits_per_subpixel
    if nats is None or claimed is None or metrics.kind != "exact":
        return
    if record.test_nats_sha256 != metrics.test_nats_sha256 or record.num_images > len(nats):
        return  # no proof of these metrics: it does not count
    bits = -float(nats_to_bits_per_subpixel(nats[: record.num_images].mean(), spec))
    if not math.isclose(bits, claimed, rel_tol=SAME):
        raise StageError(
            f"{path}: claimed_bits_per_subpixel is {claimed:.6f}, but the nats of its images give {bits:.6f}; {REMEDY}"
        )


def check_codecs(path: Path, codecs: Sequence[ReferenceCodec], expected: ExpectedTables) -> None:
    """Raises: StageError naming the file if a line is missing, surplus or of other settings."""
    if codecs and expected.codecs and sorted(codec.codec for codec in codecs) != sorted(expected.codecs):
        raise StageError(f"{path}: not the {len(expected.codecs)} codecs that are measured; {REMEDY}")
    if codecs and expected.num_codec_images not in (None, codecs[0].num_images):
        raise StageError(_of_other_images(path, codecs[0].num_images, expected.num_codec_images))


def check_rungs(path: Path, rungs: Sequence[Rung], expected: ExpectedTables) -> None:
    """Raises: StageError naming the file if a line is missing, surplus or of other settings."""
    if not rungs or not expected.components:
        return
    em = [rung.num_components for rung in rungs if rung.em_test_bits_per_subpixel is not None]
    if [rung.num_components for rung in rungs] != list(expected.components) or set(em) != set(expected.em_components):
        raise StageError(f"{path}: not the numbers of components that params.yaml asks for; {REMEDY}")
    if expected.num_ladder_images not in (None, rungs[0].num_test_images):
        raise StageError(_of_other_images(path, rungs[0].num_test_images, expected.num_ladder_images))


def _of_other_images(path: Path, said: int, expected: int | None) -> str:
    return f"{path}: of {said} test images, but params.yaml asks for {expected}; {REMEDY}"
