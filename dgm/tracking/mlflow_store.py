"""MLflow: one run of (profile, model), begun by the train stage; the report stage adds what the later stages measured.

Before training a store that cannot be reached is an error; afterwards it never stops a stage (tracked_run.py,
results.py).
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from dgm.errors import StageError
from dgm.runs.files import project_root
from dgm.runs.provenance import git_commit, git_is_dirty
from dgm.tracking.outbox import root_cause
from dgm.tracking.tracked_run import TrackedRun

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

MLFLOW_DEFAULTS = {  # MLflow's own would wait minutes for a server that is not there
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
CONNECT_SECONDS = 14.0
Result = TypeVar("Result")


def open_run(profile: str, model: str, key: str, run_id: str | None, stage: str) -> TrackedRun:
    """Goes on with run `run_id` if the store has it, else begins a run that says which one it continues.

    The store is MLFLOW_TRACKING_URI, or mlflow.db and mlruns/ in the project's root.
    Raises: StageError within 20 s if the store cannot be reached or used.
    """
    uri = tracking_uri()
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise StageError(f"MLflow cannot be imported ({error}); install requirements.lock") from None

    def connect() -> tuple[MlflowClient, Run, dict[str, int]]:
        client = MlflowClient(tracking_uri=uri)
        experiment_id = find_experiment(client, uri, f"cifar10-{profile}")
        run = find_run(client, run_id) or find_continuation(client, experiment_id, run_id)
        if run is None:
            if stage == "train":
                end_abandoned_runs(client, experiment_id, model)
            tags = new_run_tags(profile, model, key, run_id)
            return client, client.create_run(experiment_id, run_name=model, tags=tags), {}
        client.update_run(run.info.run_id, status="RUNNING")
        return client, run, last_logged_steps(client, run) if stage == "train" else {}

    try:
        if is_server(uri):
            return TrackedRun(*call_within(CONNECT_SECONDS, connect))
        logging.getLogger("alembic").setLevel(logging.WARNING)
        with store_lock():
            return TrackedRun(*connect())
    except Exception as error:  # each kind of store fails in its own way
        reason = hide_password(root_cause(error), uri)
        remedy = (
            "correct or unset MLFLOW_TRACKING_URI (unset: runs are recorded in mlflow.db here)"
            if os.environ.get("MLFLOW_TRACKING_URI")
            else "make the folder writable, or move mlflow.db away to begin a new one"
        )
        raise StageError(f"MLflow store {hide_password(uri, uri)} cannot be used: {reason}; {remedy}") from None


def tracking_uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_root() / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def find_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """Id of the experiment, which is created if need be and restored if it was deleted."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = (project_root() / "mlruns").as_uri() if uri.startswith("sqlite:") else None
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException as error:
            experiment = client.get_experiment_by_name(name)  # another process may have been first
            if experiment is None:
                raise error
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return experiment.experiment_id


def find_run(client: MlflowClient, run_id: str | None) -> Run | None:
    """The run, or None if this store has no such run or it was deleted."""
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def find_continuation(client: MlflowClient, experiment_id: str, run_id: str | None) -> Run | None:
    """The run that stands here for one that was recorded in another store, e.g. on the machine that trained."""
    if run_id is None:
        return None
    return next(iter(client.search_runs([experiment_id], f"tags.continues = '{run_id}'", max_results=1)), None)


def end_abandoned_runs(client: MlflowClient, experiment_id: str, model: str) -> None:
    """Marks as KILLED what a training of this model that was killed here left RUNNING: nothing will go on with it.

    To be called by the process that holds the model's scratch lock, so that no other one is training it here.
    """
    running = f"attributes.status = 'RUNNING' and tags.model = '{model}' and tags.place = '{place()}'"
    for run in client.search_runs([experiment_id], running):
        client.set_terminated(run.info.run_id, "KILLED")


def place() -> str:
    """This project on this machine: a server may hold the runs of many."""
    return f"{platform.node()}:{project_root()}".replace("'", "")


def new_run_tags(profile: str, model: str, key: str, continued_id: str | None) -> dict[str, str]:
    """What the run is and which code made it; an entry that is not known is left out."""
    tags = {
        "model": model,
        "profile": profile,
        "key": key,
        "place": place(),
        "dvc.exp": os.environ.get("DVC_EXP_NAME"),
        "mlflow.source.git.commit": git_commit(),
        "git.dirty": None if (is_dirty := git_is_dirty()) is None else str(is_dirty).lower(),
        "continues": continued_id,
    }
    return {name: value for name, value in tags.items() if value}


def last_logged_steps(client: MlflowClient, run: Run) -> dict[str, int]:
    """The last step in the store of each metric."""
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: max(point.step for point in points) for name, points in histories.items() if points}


def hide_password(text: str, uri: str) -> str:
    """`text` without the user name and password that `uri` may carry."""
    credentials, at, _ = urlsplit(uri).netloc.rpartition("@")
    return text.replace(f"{credentials}@", "***@") if at else text


@contextmanager
def store_lock() -> Iterator[None]:
    """Held while a database is opened: two processes that create its tables at once would both fail."""
    with (project_root() / "mlflow.db.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def call_within(seconds: float, function: Callable[[], Result]) -> Result:
    """What `function` returns or raises. Raises: TimeoutError after `seconds`; the call is then abandoned."""
    results: list[Result] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(function())
        except Exception as error:  # handed to the caller below
            errors.append(error)

    thread = threading.Thread(target=work, name="tracking-connect", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return results[0]
