"""Run files of models that were never trained, for the report's tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from dgm.runs.atomic import write_array, write_table
from dgm.runs.files import RunFiles
from dgm.runs.records import CURVE_COLUMNS, Compression, Metrics, Provenance, write_record

METRICS = Metrics(
    model="",
    profile="cpu",
    method="exact",
    kind="exact",
    test_bits_per_subpixel=3.456789012345678,
    test_standard_error=0.0084,
    test_monte_carlo_error=None,
    train_bits_per_subpixel=3.4,
    train_standard_error=0.008,
    elbo_test_bits_per_subpixel=None,
    terms_bits_per_subpixel={},
    num_test_images=10000,
    num_train_images=10000,
    num_draws=1,
    num_parameters=1234567,
    code_and_params_key="key",
)
PROVENANCE = Provenance(
    "",
    "cpu",
    "cpu",
    101.5,
    64000,
    2000,
    4_000_000,
    12_000_000,
    "run-id",
    "0123456789abcdef",
    True,
    "2026-01-02T03:04:05+00:00",
    {},
    2**30,
)


def metrics(root: Path, model: str, **changes: object) -> RunFiles:
    """Writes metrics/<model>.json with METRICS changed as said."""
    files = RunFiles("cpu", model, root)
    write_record(files.metrics, replace(METRICS, model=model, **changes))  # type: ignore[arg-type]
    return files


def whole_run(root: Path, model: str, **changes: object) -> RunFiles:
    """Writes every file that the report reads, for one model."""
    files = metrics(root, model, **changes)
    write_record(files.provenance, replace(PROVENANCE, model=model))
    write_record(files.compression, Compression(model, "cpu", 3.46, 3.4575, 100, 132864, True, "decoded"))
    write_table(files.curve, CURVE_COLUMNS, [(0, 0, 0.0, 8.0, 8.0), (1, 32, 0.1, 7.5, 7.6), (10, 320, 0.1, 5.0, 5.1)])
    write_array(files.nats("test"), np.linspace(-8000.0, -6000.0, 20))
    files.samples.parent.mkdir(parents=True, exist_ok=True)
    files.samples.write_bytes(b"not looked into")
    return files
