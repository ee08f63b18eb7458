from __future__ import annotations

from pathlib import Path

import pytest

from dgm.tracking import mlflow_store


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder that is the current one, with its own MLflow store."""
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "DVC_EXP_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in mlflow_store.MLFLOW_DEFAULTS.items():
        monkeypatch.setenv(name, value)
    return tmp_path
