"""The model of a run, as MLflow stores it: its page lists it with its figures, `mlflow models predict` scores with it.

The folder holds params.yaml, provenance and weights, read by dgm/mlflow_model.py of the installed package. In a store
on this disk the weights are a second name of the file in runs/ (a hard link), so that they are on the disk once.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dgm.config.params import PARAMS_FILE
from dgm.runs.files import RunFiles, project_root

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.models import Model, ModelSignature
    from mlflow.tracking import MlflowClient

    from dgm.tracking.tracked_run import TrackedRun

LOADER = "dgm.mlflow_model"
WEIGHTS_TAG = "weights_sha256"
PYTHON_ENV = "python: {python}\nbuild_dependencies: []\ndependencies: [-r requirements.txt]\n"
SHAPE = (-1, 3, 32, 32)


def logged_model(run: TrackedRun, weights_sha256: str) -> str | None:
    """Id of the model of these weights that the run has in the store; None if there is none."""
    from mlflow.entities import LoggedModelStatus

    outputs = run.run.outputs.model_outputs if run.run.outputs else []
    for output in outputs:
        model = run.client.get_logged_model(output.model_id)
        if model.tags.get(WEIGHTS_TAG) == weights_sha256 and model.status == LoggedModelStatus.READY:
            return model.model_id
    return None


def log_model(run: TrackedRun, files: RunFiles, weights_sha256: str, tags: Mapping[str, str]) -> str:
    """Stores the model of the run's weights, which are here. Its id. Raises: OSError, and what the client raises."""
    from mlflow.entities import LoggedModelOutput

    client, run_id = run.client, run.run_id
    tags = {**tags, WEIGHTS_TAG: weights_sha256}
    stored = client.create_logged_model(
        run.run.info.experiment_id, name=files.model, source_run_id=run_id, tags=dict(tags), model_type=tags["family"]
    )
    try:
        fill(client, stored, files)
    except BaseException:
        client.finalize_logged_model(stored.model_id, "FAILED")
        raise
    client.finalize_logged_model(stored.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(stored.model_id, 0)])
    return stored.model_id


def log_model_figures(run: TrackedRun, model_id: str, figures: Mapping[str, float], timestamp_ms: int) -> None:
    """Figures that the page shows beside the model. MLflow adds them to the run too: as the points that it has."""
    from mlflow.entities import Metric

    held = sorted(run.client.get_logged_model(model_id).metrics or [], key=lambda metric: metric.timestamp)
    latest = {metric.key: metric.value for metric in held}
    taken = {(metric.key, metric.timestamp, metric.step) for metric in held}
    metrics: list[Metric] = []
    for name, value in figures.items():
        if latest.get(name) == value:
            continue
        points = [point for point in run.client.get_metric_history(run.run_id, name) if point.value == value]
        time_ms, step = (points[-1].timestamp, points[-1].step) if points else (timestamp_ms, 0)
        if (name, time_ms, step) in taken:  # a figure that was replaced, and is back: the store has its point
            time_ms = max(timestamp_ms, *(metric.timestamp + 1 for metric in held))
        metrics.append(Metric(name, value, time_ms, step, model_id=model_id))
    if metrics:
        run.client.log_batch(run.run_id, metrics=metrics)


def fill(client: MlflowClient, stored: LoggedModel, files: RunFiles) -> None:
    """Writes the model's files where the store keeps them, or sends them there."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    if stored.artifact_location.startswith("file:"):
        write_folder(Path(local_file_uri_to_path(stored.artifact_location)), stored, files)
        return
    scratch = project_root() / ".scratch"  # on the disk of the weights, if the model is of this project
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        write_folder(Path(folder), stored, files)
        client.log_model_artifacts(stored.model_id, folder)


def write_folder(folder: Path, stored: LoggedModel, files: RunFiles) -> None:
    """Everything that loading needs, besides the package itself."""
    data = RunFiles(files.profile, files.model, folder / "data")
    for path in (data.weights, data.provenance):
        path.parent.mkdir(parents=True)
    link_or_copy(files.weights, data.weights)
    shutil.copyfile(files.provenance, data.provenance)
    shutil.copyfile(files.root / PARAMS_FILE, data.root / PARAMS_FILE)
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements()), encoding="utf-8")
    environment = PYTHON_ENV.format(python=platform.python_version())
    (folder / "python_env.yaml").write_text(environment, encoding="utf-8")
    described(stored, files).save(str(folder / "MLmodel"))


def link_or_copy(source: Path, target: Path) -> None:
    """A second name of the file, which no stage writes into: they replace it. A copy where the disk is another one."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def described(stored: LoggedModel, files: RunFiles) -> Model:
    """The content of the file MLmodel."""
    from mlflow.models import Model
    from mlflow.pyfunc import add_to_model

    model = Model(
        artifact_path=stored.artifact_location,
        run_id=stored.source_run_id,
        model_id=stored.model_id,
        signature=signature(),
        metadata={"profile": files.profile, "model": files.model, "dgm": importlib.metadata.version("dgm")},
    )
    add_to_model(model, loader_module=LOADER, data="data", python_env="python_env.yaml")
    return model


def signature() -> ModelSignature:
    """uint8 images (N, 3, 32, 32), or a table of one column of 3,072 values a row -> bits per sub-pixel."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema, TensorSpec

    bits = Schema([ColSpec("double", "bits_per_subpixel")])
    return ModelSignature(Schema([TensorSpec(np.dtype(np.uint8), SHAPE)]), bits)


def requirements() -> list[str]:
    """Of the package, with the versions here; the package itself is on no index: it is installed beside them."""
    wanted = [line for line in importlib.metadata.requires("dgm") or [] if "extra ==" not in line]
    names = [re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in wanted]
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]
