"""Where nothing is to be recorded, a run takes everything and needs no MLflow."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path

import pytest

from dgm.tracking.mlflow_store import open_run
from dgm.tracking.tracked_run import TrackedRun
from dgm.tracking.untracked_run import UntrackedRun, is_tracking_off


def use(monkeypatch: pytest.MonkeyPatch, uri: str, has_mlflow: bool) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if not has_mlflow:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize(
    ("uri", "has_mlflow", "expected"),
    [("none", True, True), ("None", False, True), ("", False, True), ("", True, False), ("http://x:1", False, False)],
)
def test_when_recording_is_off(monkeypatch: pytest.MonkeyPatch, uri: str, has_mlflow: bool, expected: bool) -> None:
    use(monkeypatch, uri, has_mlflow)
    assert is_tracking_off() is expected


def test_nothing_is_imported_and_nothing_written(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    use(monkeypatch, "none", has_mlflow=True)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with open_run("smoke", "made", "key", None, "train") as run:
        run.log_params({"a": 1})
        run.log_metrics({"b": 2.0}, 0)
        run.log_artifact(project / "absent", None)
        run.flush()
        run.finish("RUNNING")
    assert run.run_id == "" and not list(project.iterdir())


def test_it_takes_what_a_tracked_run_takes() -> None:
    for name, method in inspect.getmembers(TrackedRun, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(UntrackedRun, name)).parameters.keys() == (
                inspect.signature(method).parameters.keys()
            )
