"""Adds what the stages after training made to the MLflow run of each model: figures, samples, proof, the model itself.

Evaluation calls it for its model, so that the figures are there at once, and the report for all; sampling, compression
and proof only write files, for importing MLflow takes seconds. What a run has is not sent again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dgm.errors import StageError
from dgm.runs.atomic import file_digest
from dgm.runs.files import RunFiles
from dgm.runs.records import Compression, Metrics, Provenance, read_record
from dgm.tracking.experiment import NOTE
from dgm.tracking.limits import call_within
from dgm.tracking.logged_model import log_model, log_model_figures, logged_model
from dgm.tracking.mlflow_store import COMMIT, DIRTY, open_run
from dgm.tracking.tracked_run import TrackedRun
from dgm.tracking.untracked_run import UntrackedRun

MODEL_SECONDS = 60.0  # without any progress: a large file on a slow line may take longer
ARTIFACTS = "mlflow.dgm.artifacts"  # digests of what was sent; the prefix keeps the tag out of sight


@dataclass(frozen=True)
class About:
    """What a run says of its model, besides figures.

    note: Markdown, in which RUN_ID stands for the run's own. tier: how far the figure is proven, None without one.
    published: the figure in bits per sub-pixel, None if there is none.
    """

    family: str
    note: str
    tier: str | None
    published: float | None

    def note_of(self, run_id: str) -> str:
        """The note of the run with this id."""
        return self.note.replace("RUN_ID", run_id)


def record_results(profile: str, models: Iterable[str], keys: Mapping[str, str], about: Mapping[str, About]) -> None:
    """Metrics of the test and the training images, samples and the model itself, of each that has been trained.

    keys: what a result of the code and the settings of now carries; others are not recorded. The files are written by
    then, so a store that cannot be used is a warning, not a failure.
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
        said = about[model]
        with run:
            run.set_tags(training_tags(provenance))
            run.set_tags({"family": said.family, NOTE: said.note_of(run.run_id)})
            if (metrics := current_metrics(files, keys[model])) is not None:
                run.set_tags({"likelihood": metrics.likelihood, "tier": said.tier})
                record_current(run, files, metrics, provenance, said)
            record_files(run, [files.curve, files.metrics, files.samples])


def training_tags(provenance: Provenance) -> dict[str, str | None]:
    """Who trained the model: the code, the machine and the versions that its figures may depend on."""
    dirty = provenance.git_is_dirty
    return {
        COMMIT: provenance.git_commit,
        DIRTY: None if dirty is None else str(dirty).lower(),
        **machine_tags(provenance.device, provenance.packages),
    }


def machine_tags(device: str, packages: Mapping[str, str]) -> dict[str, str]:
    """Where a training computes: version.python, version.torch and so on, and version.dgm of this package."""
    return {"device": device, **{f"version.{package}": version for package, version in packages.items()}}


def current_metrics(files: RunFiles, key: str) -> Metrics | None:
    """What was measured of this model, if it was with the code and the settings of now (`key`)."""
    metrics = read_record(files.metrics, Metrics)
    return metrics if metrics is not None and metrics.code_and_params_key == key else None


def record_current(
    run: TrackedRun | UntrackedRun, files: RunFiles, metrics: Metrics, provenance: Provenance, said: About
) -> None:
    """The figures, and the model where its weights are: they have to be those of the figures and of this training."""
    values: dict[str, float | None] = {
        "test_bits_per_subpixel": metrics.test_bits_per_subpixel,
        "test_standard_error": metrics.test_standard_error,
        "final_train_bits_per_subpixel": metrics.train_bits_per_subpixel,
        "published_test_bits_per_subpixel": said.published,
        "parameters": metrics.parameters,
        **{f"term/{term}": bits for term, bits in metrics.terms_bits_per_subpixel.items()},
    }
    if (compression := read_record(files.compression, Compression)) is not None:
        values["compressed_bits_per_subpixel"] = compression.compressed_bits_per_subpixel
    figures = {name: value for name, value in values.items() if value is not None}
    measured_ms = int(files.metrics.stat().st_mtime * 1000)
    run.log_figures(figures, measured_ms)
    digest = metrics.weights_sha256
    if isinstance(run, TrackedRun) and digest and digest == provenance.weights_sha256:
        shown = {name: value for name, value in figures.items() if not name.startswith("term/")}
        record_model(run, files, digest, said, shown | {"train_seconds": provenance.train_seconds}, measured_ms)


def record_model(
    run: TrackedRun, files: RunFiles, digest: str, said: About, figures: Mapping[str, float], measured_ms: int
) -> None:
    """Stores the model, unless the store has it or its weights are not here, and shows its figures beside it."""

    def record() -> None:
        model_id = logged_model(run, digest)
        if model_id is None:
            if not files.weights.exists() or file_digest(files.weights) != digest:
                return
            model_id = log_model(run, files, digest, {"profile": files.profile, "family": said.family})
        if said.tier:
            run.client.set_logged_model_tags(model_id, {"tier": said.tier})
        log_model_figures(run, model_id, figures, measured_ms)

    try:
        call_within(MODEL_SECONDS, record)
    except Exception as error:  # each kind of store fails in its own way; the next report tries again
        reason = run.conceal(" ".join(str(error).split())[:300])
        print(f"warning: MLflow did not take the model of run {run.run_id} ({reason})", file=sys.stderr)


def record_files(run: TrackedRun | UntrackedRun, paths: Iterable[Path]) -> None:
    """Copies of the files that are there, unless the run has them as they are."""
    if isinstance(run, UntrackedRun):
        return
    digests: dict[str, str] = json.loads(run.run.data.tags.get(ARTIFACTS, "{}"))
    for path in paths:
        if path.exists() and digests.get(path.name) != (digest := file_digest(path)):
            run.log_artifact(path, None)
            digests[path.name] = digest
    run.set_tags({ARTIFACTS: json.dumps(digests)})
