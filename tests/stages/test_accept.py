"""What another machine trained is recorded here as if it had been trained here."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

import stages.accept as accept
import stages.dvc_command as dvc_command
from dgm.errors import StageError
from dgm.runs.files import RunFiles
from dgm.runs.records import CurvePoint, Provenance, read_record, write_curve, write_record
from dgm.suite.acceptance import Accepted
from dgm.suite.row import Row
from dgm.tracking.mlflow_store import open_run
from stages.accept import line_of, take_over
from stages.dvc_command import dvc
from tests.reporting.made_up import PROVENANCE

ROOT = Path(__file__).parents[2]


FILES = RunFiles("gpu", "nice")
THERE = replace(
    PROVENANCE,
    model="nice",
    profile="gpu",
    device="H100",
    train_seconds=31.0,
    images_seen=50,
    num_steps=5,
    mlflow_run_id=None,
    git_commit="c" * 40,
    git_is_dirty=False,
    packages={"torch": "2.11.0"},
)


def row(*stages: str, files: dict[str, bytes] | None = None) -> Accepted:
    return Accepted(Row("nice", "gpu", {}, "a" * 16, None, {}, {}, True), files or {}, stages, None)


@pytest.fixture
def arrived(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Accepted:
    """A row that has been trained elsewhere; the project here has params.yaml, and nothing of the row."""
    (project / "params.yaml").write_bytes(
        (ROOT / "params.yaml").read_text().replace("profile: cpu", "profile: gpu").encode()
    )
    there = RunFiles("gpu", "nice", tmp_path_factory.mktemp("there"))
    write_curve(there.curve, [CurvePoint(0, 0, 0.0, None, 8.0), CurvePoint(5, 50, 0.1, 7.0, 6.5)])
    write_record(there.provenance, THERE)
    paths = {FILES.curve: there.curve, FILES.provenance: there.provenance}
    return row("train", files={here.as_posix(): path.read_bytes() for here, path in paths.items()})


def make_commit(project: Path) -> None:
    """What is checked out here, which has trained nothing."""
    for words in (["init"], ["commit", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words, "-q"], cwd=project, check=True)


@pytest.fixture
def dvc_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands of DVC, which are noted and not run; and no report is written."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(accept, "dvc", lambda *words: calls.append(words))
    monkeypatch.setattr(accept, "report", lambda profile: calls.append(("report", profile)))
    return calls


def test_a_run_is_replayed_into_the_store_and_provenance_names_it(
    arrived: Accepted, dvc_calls: list[tuple[str, ...]], client: MlflowClient
) -> None:
    take_over([arrived])
    here = read_record(FILES.provenance, Provenance)
    assert here is not None and here.mlflow_run_id is not None and here.device == "H100"
    run = client.get_run(here.mlflow_run_id)
    assert run.info.status == "FINISHED" and run.data.tags["key"] == "a" * 16
    assert run.data.metrics["validation_bits_per_subpixel"] == 6.5 and run.data.metrics["train_seconds"] == 31.0
    points = client.get_metric_history(here.mlflow_run_id, "validation_bits_per_subpixel")
    assert [(point.step, point.value) for point in points] == [(0, 8.0), (5, 6.5)]
    assert run.data.params["training.batch_size"] == "1000"
    assert dvc_calls == [
        ("repro", "download", "check"), ("repro", "check"), ("commit", "-f", "train@gpu-nice"), ("report", "gpu"),
    ]  # fmt: skip


def test_its_tags_are_those_of_the_machine_that_trained(
    project: Path, arrived: Accepted, dvc_calls: list[tuple[str, ...]], client: MlflowClient
) -> None:
    make_commit(project)
    take_over([arrived])
    here = read_record(FILES.provenance, Provenance)
    assert here is not None and here.mlflow_run_id is not None
    tags = client.get_run(here.mlflow_run_id).data.tags
    assert tags["mlflow.source.name"] == "python -m stages.accept" and "mlflow.source.type" not in tags
    said = {name: tags.get(name) for name in ("mlflow.source.git.commit", "git.dirty", "device", "version.torch")}
    assert list(said.values()) == ["c" * 40, "false", "H100", "2.11.0"]
    assert tags["family"] == "flow" and here.mlflow_run_id in tags["mlflow.note.content"]
    assert not [name for name in tags if name.startswith("version.") and name != "version.torch"]


def test_where_the_machine_knew_no_commit_none_is_said(
    project: Path, arrived: Accepted, dvc_calls: list[tuple[str, ...]], client: MlflowClient
) -> None:
    make_commit(project)
    write_record(FILES.provenance, replace(THERE, git_commit=None))
    provenance = FILES.provenance.read_bytes()
    FILES.provenance.unlink()
    take_over([replace(arrived, files={**arrived.files, FILES.provenance.as_posix(): provenance})])
    here = read_record(FILES.provenance, Provenance)
    assert here is not None and here.mlflow_run_id is not None
    assert "mlflow.source.git.commit" not in client.get_run(here.mlflow_run_id).data.tags


def test_accepting_does_not_end_a_training_that_is_going_on(
    arrived: Accepted, dvc_calls: list[tuple[str, ...]], client: MlflowClient
) -> None:
    training = open_run("gpu", "nice", "a" * 16, None, "train")
    left = open_run("gpu", "nice", "a" * 16, None, "accept")  # as if this acceptance had been killed
    take_over([arrived])
    statuses = [client.get_run(run.run_id).info.status for run in (training, left)]
    assert statuses == ["RUNNING", "KILLED"]
    training.finish("FINISHED")
    left.finish("RUNNING")


def test_accepted_again_a_row_keeps_its_run(
    arrived: Accepted, dvc_calls: list[tuple[str, ...]], client: MlflowClient
) -> None:
    take_over([arrived])
    first = FILES.provenance.read_bytes()
    take_over([arrived])
    assert FILES.provenance.read_bytes() == first
    experiment = client.get_experiment_by_name("cifar10-gpu")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "validation_bits_per_subpixel")) == 2


def test_where_the_store_cannot_be_opened_nothing_is_written(
    project: Path, arrived: Accepted, dvc_calls: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    before = (project / "params.yaml").read_bytes()
    changed = replace(arrived, row=replace(arrived.row, changes={"training": {"max_seconds": 31.0}}))
    with pytest.raises(StageError, match="cannot be"):
        take_over([changed])
    assert (project / "params.yaml").read_bytes() == before
    assert not FILES.curve.exists() and not FILES.provenance.exists()
    assert dvc_calls == [("repro", "download", "check")]


def test_a_lock_file_that_a_kill_has_cut_is_told_with_the_remedy(
    project: Path, arrived: Accepted, dvc_calls: list[tuple[str, ...]]
) -> None:
    (project / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  train@gpu-nice:\n    cmd: x\n    deps:\n    - path: a\n    params:\n"
    )
    with pytest.raises(StageError, match=r"dvc.lock.*params of stage .*git checkout dvc.lock"):
        take_over([arrived])
    assert not FILES.curve.exists() and dvc_calls == []


def test_without_data_nothing_is_written(arrived: Accepted, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*words: str) -> None:
        raise StageError("dvc repro failed: data: absent")

    monkeypatch.setattr(accept, "dvc", fails)
    with pytest.raises(StageError, match="absent"):
        take_over([arrived])
    assert not FILES.curve.exists()


def test_the_profile_of_the_results_has_to_be_the_active_one(project: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(StageError, match=r"profile is cpu, the results are of gpu; write `profile: gpu`"):
        take_over([row("train", "evaluate")])
    assert (project / "params.yaml").read_text(encoding="utf-8") == text


def test_what_is_left_to_do_is_said() -> None:
    assert line_of(row("train", "evaluate", "sample", "prove", "compress")) == "nice (gpu): accepted"
    assert line_of(row("train", "evaluate")).endswith("`dvc repro` would run sample, prove, compress")
    assert "its weights are in no part" in line_of(row("evaluate"))


def test_a_command_of_dvc_that_fails_is_one_line(project: Path) -> None:
    with pytest.raises(StageError, match=r"^dvc commit failed: .*") as caught:
        dvc("commit", "nothing")
    assert "\n" not in str(caught.value)


def test_a_stage_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = "error: data: absent\nERROR: failed to reproduce 'x': failed to run: y, exited with 1\n"
    monkeypatch.setattr(dvc_command, "command", lambda *_: ["sh", "-c", f'printf "{printed}" >&2; exit 1'])
    with pytest.raises(StageError, match=r"^dvc repro failed: data: absent$"):
        dvc("repro", "x")
