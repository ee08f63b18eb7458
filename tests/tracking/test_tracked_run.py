from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dgm.tracking import tracked_run
from dgm.tracking.tracked_run import TrackedRun


class VanishingClient:
    """An MLflow client whose server answers the first `num_answers` calls and is gone afterwards."""

    def __init__(self, num_answers: int) -> None:
        self.num_answers = num_answers
        self.steps: list[int] = []
        self.status = "RUNNING"

    def log_batch(self, run_id: str, metrics: list[Any], params: list[Any], tags: list[Any]) -> None:
        self._answer()
        self.steps.extend(metric.step for metric in metrics)

    def log_artifact(self, run_id: str, path: str, folder: str | None) -> None:
        self._answer()

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        self._answer()
        self.status = status

    def _answer(self) -> None:
        if self.num_answers == 0:
            raise ConnectionError("connection refused")
        self.num_answers -= 1


@pytest.fixture
def client(project: Path, monkeypatch: pytest.MonkeyPatch) -> VanishingClient:
    monkeypatch.setattr(tracked_run, "SEND_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(tracked_run, "FINISH_SECONDS", 0.3)
    return VanishingClient(num_answers=1)


def run_with(client: VanishingClient) -> TrackedRun:
    run = SimpleNamespace(info=SimpleNamespace(run_id="r1"), data=SimpleNamespace(params={}, tags={}))
    return TrackedRun(client, run, {})  # type: ignore[arg-type]


def test_a_server_that_vanishes_stops_nothing_and_loses_nothing(
    client: VanishingClient, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curve = project / "curve.csv"
    curve.write_text("step\n1\n")
    with run_with(client) as run:
        run.log_metrics({"bits": 3.0}, 0)
        run.flush()
        for step in range(1, 4):
            run.log_metrics({"bits": 3.0 - step}, step)
            run.flush()
        run.log_params({"width": 64})
        run.log_artifact(curve, None)
    assert client.steps == [0]
    kept = project / ".scratch" / "mlflow-undelivered" / "r1.jsonl"
    entries = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [entry["step"] for entry in entries if entry["kind"] == "metric"] == [1, 2, 3]
    assert [entry["kind"] for entry in entries[3:]] == ["param", "artifact", "status"]
    assert entries[-1]["value"] == "FINISHED"
    assert (kept.parent / entries[-2]["value"]).read_text() == curve.read_text(), "the original may be gone by then"
    warning = capsys.readouterr().err
    assert f"6 records of run r1 (ConnectionError: connection refused); they are kept in {kept}" in warning


def test_a_server_that_comes_back_gets_everything(client: VanishingClient, project: Path) -> None:
    with run_with(client) as run:
        run.log_metrics({"bits": 3.0}, 0)
        run.flush()
        run.log_metrics({"bits": 2.0}, 1)
        run.flush()
        assert client.steps == [0]
        client.num_answers = 100
    assert client.steps == [0, 1]
    assert client.status == "FINISHED"
    assert not (project / ".scratch").exists()


def test_logging_returns_at_once_while_the_server_hangs(
    client: VanishingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_answer", lambda: time.sleep(1.0))
    run = run_with(client)
    run.log_metrics({"bits": 1.0}, 0)
    time.sleep(0.1)
    began = time.monotonic()
    for step in range(100):
        run.log_metrics({"bits": 1.0}, step)
    assert time.monotonic() - began < 0.5
    run.finish("FINISHED")


def test_an_unwritable_folder_at_the_end_is_a_warning(
    client: VanishingClient, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / ".scratch").write_text("in the way")
    client.num_answers = 0
    with run_with(client) as run:
        run.log_metrics({"bits": 1.0}, 0)
    assert "nor could they be kept" in capsys.readouterr().err


def test_an_artifact_must_exist(client: VanishingClient, project: Path) -> None:
    run = run_with(client)
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"):
        run.log_artifact(project / "missing.csv", None)
    run.finish("FINISHED")
