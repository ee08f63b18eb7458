from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from dgm.tracking import tracked_run, undelivered
from dgm.tracking.mlflow_store import open_run
from dgm.tracking.outbox import Entry
from dgm.tracking.undelivered import deliver_kept, keep_undelivered, undelivered_folder
from tests.tracking import processes


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    """A run that a killed process left RUNNING."""
    run = open_run("cpu", "vae", "k", None, "train")
    run.finish("RUNNING")
    return run.run_id


def metric(step: int) -> Entry:
    return Entry("metric", "bits", 1.0 * step, step, 1000 + step)


def steps(client: MlflowClient, run_id: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, "bits")]


def everything(project: Path) -> list[Entry]:
    (note := project / "note.txt").write_text("x")
    others = [Entry("param", "width", "4", 0, 5), Entry("param", "note", "first", 0, 5)]
    artifact = Entry("artifact", "notes", str(note), 0, 5)
    return [*(metric(step) for step in range(3)), *others, artifact, Entry("status", "status", "FINISHED", 0, 5)]


def test_the_next_command_delivers_what_was_kept_and_deletes_it(
    client: MlflowClient, project: Path, run_id: str
) -> None:
    keep_undelivered(run_id, everything(project))
    (project / "note.txt").unlink()
    open_run("cpu", "made", "k", None, "report").finish("FINISHED")
    run = client.get_run(run_id)
    assert steps(client, run_id) == [0, 1, 2]
    assert (run.data.params["width"], run.data.params["note"], run.info.status) == ("4", "first", "FINISHED")
    assert (project / "mlruns" / run_id / "artifacts" / "notes" / "note.txt").read_text() == "x"
    assert not undelivered_folder().exists()


def test_a_kill_at_any_entry_loses_nothing_and_records_nothing_twice(
    client: MlflowClient, project: Path, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undelivered, "next_batch", lambda entries: entries[:1])
    keep_undelivered(run_id, everything(project))
    remove = undelivered.remove
    for is_removed in (False, True, False, True, False, True):

        def die(path: Path, batch: list[Entry], is_removed: bool = is_removed) -> None:
            if is_removed:
                remove(path, batch)
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(undelivered, "remove", die)
        assert processes.exit_code(processes.start(lambda: deliver_kept(client, None))) == -signal.SIGKILL
    monkeypatch.setattr(undelivered, "remove", remove)
    deliver_kept(client, None)
    assert steps(client, run_id) == [0, 1, 2]
    assert client.get_run(run_id).info.status == "FINISHED"
    assert not undelivered_folder().exists()


def test_what_the_store_refuses_stays_and_holds_back_no_other(client: MlflowClient, project: Path, run_id: str) -> None:
    client.log_param(run_id, "width", "1")
    refused = Entry("param", "width", "2", 0, 5)
    path = keep_undelivered(run_id, [metric(0), refused, metric(1), Entry("status", "status", "FAILED", 0, 5)])
    damaged = '{"kind": "metric", "key'
    path.write_text(path.read_text() + damaged + "\n")
    deliver_kept(client, None)
    assert steps(client, run_id) == [0, 1]
    assert client.get_run(run_id).info.status == "FAILED"
    kept = path.read_text().splitlines()
    assert (json.loads(kept[0])["key"], kept[1:]) == ("width", [damaged])


def test_a_run_of_another_store_keeps_its_records(client: MlflowClient, project: Path) -> None:
    path = keep_undelivered("0" * 32, [metric(0)])
    open_run("cpu", "vae", "k", None, "train").finish("FINISHED")
    assert len(path.read_text().splitlines()) == 1


def test_a_run_that_goes_on_gets_its_points_once_and_not_its_old_status(
    client: MlflowClient, project: Path, run_id: str
) -> None:
    keep_undelivered(run_id, [metric(1), metric(2), Entry("status", "status", "KILLED", 0, 5)])
    resumed = open_run("cpu", "vae", "k", run_id, "train")
    assert client.get_run(run_id).info.status == "RUNNING"
    for step in (2, 3):
        resumed.log_metrics({"bits": 1.0 * step}, step)
    resumed.finish("RUNNING")
    assert steps(client, run_id) == [1, 2, 3]
    assert client.get_run(run_id).info.status == "RUNNING"


def test_an_old_status_does_not_replace_the_status_of_a_run_that_has_ended(client: MlflowClient, run_id: str) -> None:
    keep_undelivered(run_id, [Entry("status", "status", "KILLED", 0, 5)])
    client.set_terminated(run_id, "FINISHED")
    deliver_kept(client, None)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert not undelivered_folder().exists()


def test_a_store_that_goes_away_keeps_the_rest(
    client: MlflowClient, project: Path, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keep_undelivered(run_id, everything(project))
    before = path.read_text()

    def fail(*arguments: Any, **named: Any) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(client, "log_batch", fail)
    deliver_kept(client, None)
    assert path.read_text() == before


def test_entries_kept_while_another_process_delivers_are_not_lost(
    client: MlflowClient, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keep_undelivered(run_id, [metric(1)])
    log_batch = client.log_batch

    def keep_more(*arguments: Any, **named: Any) -> None:
        keep_undelivered(run_id, [metric(2)])
        log_batch(*arguments, **named)

    monkeypatch.setattr(client, "log_batch", keep_more)
    deliver_kept(client, None)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [2]
    assert steps(client, run_id) == [1]


@pytest.mark.parametrize("obstacle", ["mlruns is a file", "the run's folder is a file"])
def test_an_artifact_that_cannot_be_written_holds_back_no_other(
    client: MlflowClient, project: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    monkeypatch.setattr(tracked_run, "FINISH_SECONDS", 8.0)
    (note := project / "note.txt").write_text("x")
    with open_run("cpu", "vae", "k", None, "train") as run:
        target = project / "mlruns"
        if obstacle != "mlruns is a file":
            target.mkdir()
            target = target / run.run_id
        target.write_text("in the way")
        run.log_artifact(note, "first")
        run.log_artifact(note, None)
        run.log_metrics({"bits": 1.0}, 1)
    info = client.get_run(run.run_id).info
    assert (info.status, steps(client, run.run_id)) == ("FINISHED", [1])
    kept = undelivered_folder() / f"{run.run_id}.jsonl"
    assert [json.loads(line)["kind"] for line in kept.read_text().splitlines()] == ["artifact"] * 2
    target.unlink()
    shutil.rmtree(project / "mlruns", ignore_errors=True)
    with open_run("cpu", "vae", "k", run.run_id, "report"):
        pass
    assert {file.path for file in client.list_artifacts(run.run_id)} == {"first", "note.txt"}
    assert not undelivered_folder().exists()


def test_a_refused_record_takes_no_other_of_its_batch_with_it(client: MlflowClient, project: Path) -> None:
    with open_run("cpu", "vae", "k", None, "train") as run:
        client.log_batch(run.run_id, metrics=[Metric("bits", 0.0, 0, 0)])
        client.log_param(run.run_id, "depth", "1")
        run.log_params({"width": 1, "depth": 2, "height": 3})
        run.log_metrics({"bits": 2.0}, 1)
        run.log_metrics({"bits": 2.0}, 2**70)
        run.log_metrics({"bits": 3.0}, 2)
    found = client.get_run(run.run_id)
    assert (found.data.params, found.info.status) == ({"width": "1", "depth": "1", "height": "3"}, "FINISHED")
    assert steps(client, run.run_id) == [0, 1, 2]
    kept = (undelivered_folder() / f"{run.run_id}.jsonl").read_text().splitlines()
    assert [(entry["kind"], entry["key"]) for entry in map(json.loads, kept)] == [
        ("param", "depth"),
        ("metric", "bits"),
    ]
