"""Adds what the later stages made to the MLflow run of each model, in one process: metrics, samples, compressed size.

Importing and opening MLflow takes seconds, so only training (which must know that the store is there before it begins)
and the report do it; evaluation, sampling and compression write files.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from dgm.errors import StageError
from dgm.runs.files import RunFiles
from dgm.runs.records import Compression, Metrics, Provenance, read_record
from dgm.tracking.mlflow_store import open_run
from dgm.tracking.tracked_run import TrackedRun
from dgm.tracking.untracked_run import UntrackedRun


def record_results(profile: str, models: Iterable[str], keys: Mapping[str, str]) -> None:
    """Metrics of the test and the training images and the samples, for each model that has been trained.

    The report is written by then, so a store that cannot be used is a warning, not a failure.
    """
    for model in models:
        files = RunFiles(profile, model)
        provenance = read_record(files.provenance, Provenance)
        if provenance is None:
            continue
        try:
            run = open_run(profile, model, keys[model], provenance.mlflow_run_id, "report")
        except StageError as error:
            print(f"warning: results are not recorded: {error}", file=sys.stderr)
            return
        with run:
            record_metrics(run, files, keys[model])
            for path in (files.metrics, files.samples):
                if path.exists():
                    run.log_artifact(path, None)


def record_metrics(run: TrackedRun | UntrackedRun, files: RunFiles, key: str) -> None:
    """What was measured of this model, as far as it has been with the code and the settings of now (`key`)."""
    metrics = read_record(files.metrics, Metrics)
    if metrics is None or metrics.code_and_params_key != key:
        return
    values: dict[str, float | None] = {
        "test_bits_per_subpixel": metrics.test_bits_per_subpixel,
        "test_standard_error": metrics.test_standard_error,
        "final_train_bits_per_subpixel": metrics.train_bits_per_subpixel,
        **{f"term/{term}": bits for term, bits in metrics.terms_bits_per_subpixel.items()},
    }
    if (compression := read_record(files.compression, Compression)) is not None:
        values["compressed_bits_per_subpixel"] = compression.compressed_bits_per_subpixel
    run.log_metrics({name: value for name, value in values.items() if value is not None}, 0)
