"""What another machine trained is recorded here as if it had been trained here."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from dgm.errors import StageError
from dgm.runs.files import RunFiles
from dgm.runs.records import CurvePoint, Provenance, read_record, write_curve, write_record
from dgm.suite.acceptance import Accepted
from dgm.suite.row import Row
from stages.accept import line_of, replay, take_over
from stages.dvc_command import dvc

ROOT = Path(__file__).parents[2]


def row(*stages: str) -> Accepted:
    return Accepted(Row("nice", "gpu", {}, "a" * 16, None, {}, {}, True), {}, stages, None)


def test_a_run_is_replayed_into_the_store_and_provenance_names_it(project: Path, client: MlflowClient) -> None:
    (project / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    files = RunFiles("gpu", "nice")
    write_curve(files.curve, [CurvePoint(0, 0, 0.0, None, 8.0), CurvePoint(5, 50, 0.1, 7.0, 6.5)])
    there = Provenance(
        "nice", "gpu", "H100", 31.0, 50, 5, None, None, None, None, None, "2026-01-01T00:00:00+00:00", {}, None
    )
    write_record(files.provenance, there)
    replay(row("train"))
    here = read_record(files.provenance, Provenance)
    assert here is not None and here.mlflow_run_id is not None and here.device == "H100"
    run = client.get_run(here.mlflow_run_id)
    assert run.info.status == "FINISHED" and run.data.tags["key"] == "a" * 16
    assert run.data.metrics["validation_bits_per_subpixel"] == 6.5 and run.data.metrics["train_seconds"] == 31.0
    points = client.get_metric_history(here.mlflow_run_id, "validation_bits_per_subpixel")
    assert [(point.step, point.value) for point in points] == [(0, 8.0), (5, 6.5)]
    assert run.data.params["model.training.batch_size"] == "1000"


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
