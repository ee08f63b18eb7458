"""Run files of models that were never trained, for the report's tests."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dgm.runs.atomic import array_digest, write_array
from dgm.runs.checked import write_json
from dgm.runs.files import BUDGETS, BudgetFiles, RunFiles
from dgm.runs.records import Compression, CurvePoint, Metrics, Provenance, write_curve, write_record
from dgm.runs.scaling_records import ScalingPoint
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
SCALED = ScalingPoint(
    model="made",
    profile="cpu",
    budget="one",
    likelihood="exact",
    validation_bits_per_subpixel=3.987654321098765,
    standard_error=0.0131,
    num_images=2000,
    training_flops=2 * 10**12,
    num_steps=1000,
    images_seen=8000,
    train_seconds=100.5,
    device="cpu",
    key="key",
    weights_sha256="0" * 64,
)
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
    unit = spec.num_subpixels * math.log(2)
    found = {
        "test_bits_per_subpixel": -float(nats.mean()) / unit,
        "test_standard_error": float(nats.std(ddof=1)) / math.sqrt(len(nats)) / unit,
        "test_nats_sha256": array_digest(nats),
    }
    files = metrics(root, model, num_test_images=len(nats), **found | changes)
    write_array(files.nats("test"), nats)
    return files


def nats_of(bits: float, error: float, num_images: int) -> np.ndarray:
    """Nats of as many images, above and below the mean in turn, that give this figure and this standard error."""
    spread = np.where(np.arange(num_images) % 2, 1.0, -1.0)
    spread -= spread.mean()
    spread *= error * math.sqrt(num_images) / spread.std(ddof=1)
    return -(bits + spread) * bits_per_subpixel_to_nats(1.0, CIFAR10)


def whole_run(root: Path, model: str, **changes: Any) -> RunFiles:
    """Writes every file that the report reads, for one model, but for the picture of samples."""
    bits = changes.get("test_bits_per_subpixel", METRICS.test_bits_per_subpixel)
    error = changes.get("test_standard_error", METRICS.test_standard_error)
    nats = nats_of(bits, error, changes.get("num_test_images", METRICS.num_test_images))
    files = metrics(root, model, **{"test_nats_sha256": array_digest(nats)} | changes)
    write_record(files.provenance, replace(PROVENANCE, model=model))
    write_record(files.compression, replace(COMPRESSION, model=model))
    write_curve(files.curve, CURVE)
    write_array(files.nats("test"), nats)
    return files


def measured(root: Path, model: str, *bits: float, **changes: Any) -> list[BudgetFiles]:
    """Writes what was measured with a quarter, one and four times the budget; fewer where fewer figures are given."""
    written: list[BudgetFiles] = []
    for (budget, factor), value in zip(BUDGETS.items(), bits, strict=False):
        files = BudgetFiles("cpu", model, root, budget)
        found = {"validation_bits_per_subpixel": value, "training_flops": round(factor * SCALED.training_flops)}
        write_json(files.scaling, replace(SCALED, model=model, budget=budget, **found | changes))
        written.append(files)
    return written
