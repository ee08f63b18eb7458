"""MLflow: one run of (profile, model), begun by the train stage; evaluation and the report add what they know.

Before training a store that cannot be reached is an error; afterwards it never stops a stage (tracked_run.py,
results.py).
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from dgm.errors import StageError
from dgm.runs.files import project_root
from dgm.runs.provenance import git_commit, git_is_dirty
from dgm.tracking.causes import StoreAwayError, cause_and_remedy, is_away
from dgm.tracking.database import create_if_absent, prepare_database
from dgm.tracking.experiment import find_experiment
from dgm.tracking.limits import call_within
from dgm.tracking.secrets import PASSWORD, USER, VARIABLE
from dgm.tracking.store import Store, find_store
from dgm.tracking.tracked_run import TrackedRun
from dgm.tracking.undelivered import deliver_kept, forget_status
from dgm.tracking.untracked_run import UntrackedRun, is_tracking_off

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

MLFLOW_DEFAULTS = {  # MLflow's own would wait minutes for a server that is not there
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # it logs errors with tracebacks and addresses; here they become one line
}
Result = TypeVar("Result")
SOURCE, COMMIT, DIRTY = "mlflow.source.name", "mlflow.source.git.commit", "git.dirty"
OPENING_SECONDS = 12.0  # with the wait for a busy database (6 s) below 20


def open_run(profile: str, model: str, key: str, run_id: str | None, stage: str) -> TrackedRun | UntrackedRun:
    """Goes on with run `run_id` if the store has it, else begins a run that says which one it continues.

    stage: train, accept (a training from another machine) or a later one, which adds to what has ended.
    What an earlier command could not deliver is delivered first. Where recording is switched off
    (MLFLOW_TRACKING_URI=none), or MLflow is not installed and no store is named, the run keeps nothing.
    Raises: StageError within 20 s if the store cannot be reached or used, StoreAwayError if it may be later; within
    two minutes, of which a line on stderr tells, if another process creates the database and does not come to an end.
    """
    if is_tracking_off():
        return UntrackedRun()
    store, has_curve = find_store(), stage in ("train", "accept")

    def begin(client: MlflowClient) -> TrackedRun:
        experiment_id = find_experiment(client, store, profile)
        deliver_kept(client, run_id)
        run = find_run(client, run_id) or find_continuation(client, experiment_id, run_id)
        if run is None:
            source = source_tags(profile, model, stage)
            if source:
                end_abandoned_runs(client, experiment_id, store, model, key, source[SOURCE])
            tags = new_run_tags(profile, model, key, run_id) | source
            run = client.create_run(experiment_id, run_name=model, tags=tags)
            return TrackedRun(client, run, {}, store.conceal, has_curve)
        forget_status(run.info.run_id)
        client.update_run(run.info.run_id, status="RUNNING")
        last_steps = last_logged_steps(client, run) if has_curve else {}
        return TrackedRun(client, run, last_steps, store.conceal, has_curve)

    return use_store(store, begin, undo=lambda run: run.finish("KILLED"))


def check_store(profile: str) -> None:
    """Makes sure that runs of the profile can be recorded. Raises: StageError as `open_run` does."""
    if not is_tracking_off():
        store = find_store()
        use_store(store, lambda client: find_experiment(client, store, profile))


def use_store(
    store: Store, use: Callable[[MlflowClient], Result], undo: Callable[[Result], object] | None = None
) -> Result:
    """What `use` returns. undo: gets it if the wait for it was interrupted. Raises: StageError as `open_run` does."""
    prepare_environment(store)
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise StageError(f"MLflow cannot be imported ({error}); install requirements.lock") from None

    def connect() -> Result:
        if store.database is not None:
            prepare_database(store, store.database)
        return use(MlflowClient(tracking_uri=store.uri))

    try:
        if store.database is not None:
            create_if_absent(store.database, OPENING_SECONDS)
        return call_within(OPENING_SECONDS, connect, undo=undo)
    except StageError:
        raise
    except Exception as error:  # each kind of store fails in its own way
        reason, remedy = cause_and_remedy(error, store)
        kind = StoreAwayError if is_away(error, store) else StageError
        raise kind(f"MLflow store {store.shown} cannot be used: {store.conceal(reason)}; {remedy}") from None


def prepare_environment(store: Store) -> None:
    """Settings that MLflow reads from the environment. Credentials go there too, so that no address shows them."""
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    if store.credentials is not None:
        os.environ[USER], os.environ[PASSWORD] = store.credentials
        os.environ[VARIABLE] = store.uri
    logging.getLogger("alembic").setLevel(logging.WARNING)


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


def end_abandoned_runs(
    client: MlflowClient, experiment_id: str, store: Store, model: str, key: str, command: str
) -> None:
    """Marks as KILLED what this command for this model with these settings, killed here before, left RUNNING.

    A training is called by the process that holds the scratch lock of (profile, model, key), so that the process of
    such a run is gone. In the project's own database the project may have had another place before.
    """
    here = f"= '{place()}'" if not store.is_own else f"LIKE '{place().partition(':')[0]}:%'"
    running = f"attributes.status = 'RUNNING' and tags.model = '{model}' and tags.key = '{key}' and tags.place {here}"
    for run in client.search_runs([experiment_id], f"{running} and tags.`{SOURCE}` = '{command}'"):
        client.set_terminated(run.info.run_id, "KILLED")


def place() -> str:
    """This project on this machine: a server may hold the runs of many."""
    return f"{platform.node()}:{project_root()}".replace("'", "")


def new_run_tags(profile: str, model: str, key: str, continued_id: str | None) -> dict[str, str]:
    """What the run is; an entry that is not known is left out."""
    tags = {
        "model": model,
        "profile": profile,
        "key": key,
        "place": place(),
        "dvc.exp": os.environ.get("DVC_EXP_NAME"),
        "continues": continued_id,
    }
    return {name: value for name, value in tags.items() if value}


def source_tags(profile: str, model: str, stage: str) -> dict[str, str]:
    """The command that a run is from, where the list of runs shows it; of a training also which code it is.

    A run that was recorded in another store before is from none here. Whatever was trained elsewhere has the code that
    its provenance names.
    """
    if stage == "accept":
        return {SOURCE: "python -m stages.accept"}
    if stage != "train":
        return {}
    tags = {SOURCE: f"python -m stages.train --model {model} --profile {profile}", "mlflow.source.type": "LOCAL"}
    if (commit := git_commit()) is not None:
        tags[COMMIT] = commit
    if (is_dirty := git_is_dirty()) is not None:
        tags[DIRTY] = str(is_dirty).lower()
    return tags


def last_logged_steps(client: MlflowClient, run: Run) -> dict[str, int]:
    """The last step in the store of each metric."""
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: max(point.step for point in points) for name, points in histories.items() if points}
