"""The nats of every test image, beside the record of the figures that they are the parts of."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from dgm.errors import StageError
from dgm.runs.atomic import array_digest, read_array
from dgm.runs.checked import REMEDY, own
from dgm.runs.files import RunFiles
from dgm.runs.records import Metrics, read_record
from dgm.types import ImageSpec
from dgm.units import nats_to_bits_per_subpixel

ROUNDING = 1e-6  # nats: how far above 0 the logarithm of a probability of 1 may come out
SAME = 1e-9  # relative: sums of the same numbers in another order


def scored_nats(files: RunFiles, spec: ImageSpec, result_key: str, weights_sha256: str) -> np.ndarray:
    """The nats of the test images that the run's metrics are of. Shapes: -> float64 (N,).

    result_key: what a result of the code and the numbers of now would carry; weights_sha256: of the trained weights.
    Raises: StageError in one line if the metrics are absent, of other settings, code or weights, or if the nats are not
    theirs.
    """
    remedy = f"run `python -m stages.evaluate --model {files.model} --profile {files.profile}`"
    metrics = own(files.metrics, read_record(files.metrics, Metrics), files)
    if metrics is None:
        raise StageError(f"{files.metrics}: absent; {remedy}")
    if metrics.code_and_params_key != result_key:
        keys = f"key {metrics.code_and_params_key[:60]}, now {result_key}"
        raise StageError(f"{files.metrics}: scored with other settings or code than those of now ({keys}); {remedy}")
    if metrics.weights_sha256 not in (None, weights_sha256):
        raise StageError(f"{files.metrics}: scored with other weights than those that are there; {remedy}")
    nats = own_nats(files.nats("test"), metrics)
    check_figures(files.metrics, metrics, nats, spec)
    return nats


def own_nats(path: Path, metrics: Metrics) -> np.ndarray:
    """The array that `metrics` was computed from. Raises: StageError naming the file if it is another one."""
    nats = read_array(path, "run `dvc repro`")
    if nats.dtype != np.float64 or nats.shape != (metrics.num_test_images,) or not np.isfinite(nats).all():
        raise StageError(f"{path}: not {metrics.num_test_images} finite numbers of type float64; {REMEDY}")
    if metrics.kind == "exact" and nats.max() > ROUNDING:
        raise StageError(f"{path}: image {int(nats.argmax())} has a probability above 1; {REMEDY}")
    if metrics.test_nats_sha256 is None:
        raise StageError(f"{path}: the metrics do not say which nats they are of; {REMEDY}")
    if array_digest(nats) != metrics.test_nats_sha256:
        raise StageError(f"{path}: not the nats that the metrics were computed from (by their SHA-256); {REMEDY}")
    return nats


def check_figures(path: Path, metrics: Metrics, nats: np.ndarray, spec: ImageSpec) -> None:
    """Raises: StageError naming `path`, that of the metrics, if their nats give another figure or another error."""
    bits = -float(nats_to_bits_per_subpixel(nats.mean(), spec))
    error = float(nats_to_bits_per_subpixel(nats.std(ddof=1), spec)) / math.sqrt(len(nats)) if len(nats) > 1 else 0.0
    for name, said, found in (
        ("test_bits_per_subpixel", metrics.test_bits_per_subpixel, bits),
        ("test_standard_error", metrics.test_standard_error, error),
    ):
        if not math.isclose(said, found, rel_tol=SAME, abs_tol=SAME):
            raise StageError(f"{path}: {name} is {said:.6f}, but the nats of its images give {found:.6f}; {REMEDY}")
