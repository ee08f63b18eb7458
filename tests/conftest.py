"""Fixtures of several folders."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from dgm.tracking import mlflow_store

STORE_VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")

# A shell tells what runs in its background to ignore Ctrl-C, and nohup to ignore SIGHUP: both are tested here.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder that is the current one, with its own MLflow store."""
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "DVC_EXP_NAME", "MLFLOW_TRACKING_URI", *STORE_VARIABLES):
        monkeypatch.setenv(name, "")  # so that the value of before comes back, absent or not
        monkeypatch.delenv(name)
    for name, value in mlflow_store.MLFLOW_DEFAULTS.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making them takes seconds, copying them no time."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def client(project: Path, empty_database: Path) -> MlflowClient:
    shutil.copy(empty_database, project / "mlflow.db")
    return MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
