"""What the report adds to the MLflow runs: current figures only, and never at the price of the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from dgm.runs.files import RunFiles
from dgm.runs.records import Metrics, Provenance, write_record
from dgm.tracking.mlflow_store import open_run
from dgm.tracking.results import record_results


@pytest.fixture
def trained(client: MlflowClient, project: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Id of the run of a model that was trained and evaluated under the key `now`."""
    monkeypatch.chdir(project)
    with open_run("cpu", "vae", "now", None, "train") as run:
        run_id = run.run_id
    files = RunFiles("cpu", "vae")
    provenance = Provenance("vae", "cpu", "cpu", 1.0, 1, 1, 3, 9, run_id, None, None, "2026-11-24", {}, None)
    write_record(files.provenance, provenance)
    terms = {"reconstruction": 3.0, "kl_layer_01": 1.5}
    write_record(
        files.metrics,
        Metrics("vae", "cpu", "elbo", "lower_bound", 4.5, 0.1, None, 4.4, 0.1, None, terms, 2, 2, 1, 9, "now"),
    )
    return run_id


def test_figures_and_terms_reach_the_run_of_the_training(client: MlflowClient, trained: str) -> None:
    record_results("cpu", ["vae", "not trained"], {"vae": "now", "not trained": "now"})
    metrics = client.get_run(trained).data.metrics
    assert metrics["test_bits_per_subpixel"] == 4.5 and metrics["term/kl_layer_01"] == 1.5
    assert [file.path for file in client.list_artifacts(trained)] == ["vae.json"]


def test_figures_of_other_code_or_settings_are_not_recorded(client: MlflowClient, trained: str) -> None:
    record_results("cpu", ["vae"], {"vae": "later"})
    assert "test_bits_per_subpixel" not in client.get_run(trained).data.metrics


def test_a_store_that_cannot_be_used_is_a_warning(
    trained: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    record_results("cpu", ["vae"], {"vae": "now"})
    assert "warning: results are not recorded: MLflow store" in capsys.readouterr().err
