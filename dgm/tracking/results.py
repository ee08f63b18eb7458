"""Adds what the cheap stages made (samples, compressed size) to the MLflow run of each model, in one process.

Opening MLflow takes seconds, so the sample and compress stages do not; the report stage does it once for all.
"""

from __future__ import annotations

from collections.abc import Iterable

from dgm.runs import Compression, Provenance, RunFiles, read_record
from dgm.tracking.mlflow_store import open_run


def record_results(profile: str, models: Iterable[str], keys: dict[str, str]) -> None:
    """Samples as an artifact and compressed bits per sub-pixel as a metric, for each model that has been trained."""
    for model in models:
        files = RunFiles(profile, model)
        provenance = read_record(files.provenance, Provenance)
        if provenance is None:
            continue
        with open_run(profile, model, keys[model], provenance.mlflow_run_id, "report") as run:
            if files.samples.exists():
                run.log_artifact(files.samples, None)
            compression = read_record(files.compression, Compression)
            if compression is not None and compression.compressed_bits_per_subpixel is not None:
                run.log_metrics({"compressed_bits_per_subpixel": compression.compressed_bits_per_subpixel}, 0)
