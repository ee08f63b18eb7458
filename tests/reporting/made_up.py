"""Run files of models that were never trained, for the report's tests."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dgm.runs.atomic import write_array
from dgm.runs.files import RunFiles
from dgm.runs.records import Compression, CurvePoint, Metrics, Provenance, write_curve, write_record
from dgm.types import CIFAR10, ImageSpec
from dgm.units import bits_per_subpixel_to_nats

METRICS = Metrics(
    model="made up",
    profile="cpu",
    likelihood="exact",
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
    parameters=1234567,
    code_and_params_key="key",
)
BOUND: dict[str, Any] = {"kind": "lower_bound", "likelihood": "dequantized"}
PROVENANCE = Provenance(
    model="made up",
    profile="cpu",
    device="cpu",
    train_seconds=101.5,
    images_seen=64000,
    num_steps=10,
    forward_flops_per_image=4_000_000,
    training_flops_per_image=12_000_000,
    mlflow_run_id="run-id",
    git_commit="0123456789abcdef",
    git_is_dirty=True,
    finished_at="2026-01-02T03:04:05+00:00",
    packages={},
    peak_memory_bytes=2**30,
)
COMPRESSION = Compression("made up", "cpu", 3.46, 3.4575, 100, 132864, True, "decoded")
CURVE = (
    CurvePoint(0, 0, 0.0, 8.0, 8.0),
    CurvePoint(1, 32, 0.1, 7.5, 7.6),
    CurvePoint(10, 320, 0.1, 5.0, 5.1),
)


def metrics(root: Path, model: str, **changes: Any) -> RunFiles:
    """Writes metrics/<model>.json with METRICS changed as said."""
    files = RunFiles("cpu", model, root)
    write_record(files.metrics, replace(METRICS, model=model, **changes))
    return files


def scored(root: Path, model: str, nats: np.ndarray, spec: ImageSpec = CIFAR10, **changes: Any) -> RunFiles:
    """Writes the nats of the test images and the metrics that fit them."""
    bits = -float(nats.mean()) / (spec.num_subpixels * math.log(2))
    files = metrics(root, model, test_bits_per_subpixel=bits, num_test_images=len(nats), **changes)
    write_array(files.nats("test"), nats)
    return files


def whole_run(root: Path, model: str, **changes: Any) -> RunFiles:
    """Writes every file that the report reads, for one model."""
    files = metrics(root, model, **changes)
    write_record(files.provenance, replace(PROVENANCE, model=model))
    write_record(files.compression, replace(COMPRESSION, model=model))
    write_curve(files.curve, CURVE)
    bits = changes.get("test_bits_per_subpixel", METRICS.test_bits_per_subpixel)
    nats = np.full(changes.get("num_test_images", 10000), -bits_per_subpixel_to_nats(bits, CIFAR10))
    write_array(files.nats("test"), nats)
    files.samples.parent.mkdir(parents=True, exist_ok=True)
    files.samples.write_bytes(b"not looked into")
    return files
