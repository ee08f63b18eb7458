"""What evaluation and the report add to the MLflow runs: current figures only, once, and never at their own price."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from dgm.runs.files import RunFiles
from dgm.runs.records import Metrics, Provenance, read_record, write_record
from dgm.tracking.experiment import NOTE
from dgm.tracking.mlflow_store import open_run
from dgm.tracking.results import About, record_results

ABOUT = About("latent variable", "VAE: `runs:/RUN_ID/vae`", "untested", 4.1)


@pytest.fixture
def trained(client: MlflowClient, project: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Id of the run of a model that was trained and evaluated under the key `now`."""
    monkeypatch.chdir(project)
    with open_run("cpu", "vae", "now", None, "train") as run:
        run_id = run.run_id
    files = RunFiles("cpu", "vae")
    packages = {"python": "3.11.7", "dgm": "0.1.0", "torch": "2.11.0"}
    provenance = Provenance(
        "vae", "cpu", "AMD EPYC, 1 thread", 1.0, 1, 1, 3, 9, run_id, "c" * 40, False, "2026-11-24", packages, None
    )
    write_record(files.provenance, provenance)
    terms = {"reconstruction": 3.0, "kl_layer_01": 1.5}
    write_record(
        files.metrics,
        Metrics("vae", "cpu", "elbo", "lower_bound", 4.5, 0.1, None, 4.4, 0.1, None, terms, 2, 2, 1, 9, "now"),
    )
    return run_id


def test_figures_and_terms_reach_the_run_of_the_training(client: MlflowClient, trained: str) -> None:
    record_results("cpu", ["vae", "not trained"], {"vae": "now", "not trained": "now"}, {"vae": ABOUT})
    metrics = client.get_run(trained).data.metrics
    assert metrics["test_bits_per_subpixel"] == 4.5 and metrics["term/kl_layer_01"] == 1.5
    assert [file.path for file in client.list_artifacts(trained)] == ["vae.json"]


def test_figures_of_other_code_or_settings_are_not_recorded(client: MlflowClient, trained: str) -> None:
    record_results("cpu", ["vae"], {"vae": "later"}, {"vae": ABOUT})
    assert "test_bits_per_subpixel" not in client.get_run(trained).data.metrics


def test_a_store_that_cannot_be_used_is_a_warning(
    trained: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    record_results("cpu", ["vae"], {"vae": "now"}, {"vae": ABOUT})
    assert "warning: results are not recorded: MLflow store" in capsys.readouterr().err


def test_a_run_says_what_it_is_of_and_where_it_was_trained(client: MlflowClient, trained: str) -> None:
    record_results("cpu", ["vae"], {"vae": "now"}, {"vae": ABOUT})
    run = client.get_run(trained)
    expected = {
        NOTE: f"VAE: `runs:/{trained}/vae`",
        "family": "latent variable",
        "tier": "untested",
        "likelihood": "elbo",
        "device": "AMD EPYC, 1 thread",
        "version.python": "3.11.7",
        "version.dgm": "0.1.0",
        "version.torch": "2.11.0",
        "mlflow.source.git.commit": "c" * 40,
        "git.dirty": "false",
    }
    assert {name: run.data.tags.get(name) for name in expected} == expected
    assert run.data.metrics["published_test_bits_per_subpixel"] == 4.1


def test_what_a_run_has_is_not_sent_again_and_its_duration_stays(
    client: MlflowClient, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = client.get_run(trained).info
    record_results("cpu", ["vae"], {"vae": "now"}, {"vae": ABOUT})
    sent: list[object] = []
    monkeypatch.setattr("dgm.tracking.delivery.send", lambda client, run_id, batch: sent.extend(batch))
    record_results("cpu", ["vae"], {"vae": "now"}, {"vae": ABOUT})
    assert [entry.kind for entry in sent] == ["status"]  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.undo()
    after = client.get_run(trained).info
    assert len(client.get_metric_history(trained, "test_bits_per_subpixel")) == 1
    assert after.end_time == before.end_time


def test_new_figures_and_a_new_tier_replace_the_old_ones(client: MlflowClient, trained: str) -> None:
    record_results("cpu", ["vae"], {"vae": "now"}, {"vae": ABOUT})
    files = RunFiles("cpu", "vae")
    metrics = read_record(files.metrics, Metrics)
    assert metrics is not None
    write_record(files.metrics, replace(metrics, test_standard_error=0.25))
    os.utime(files.metrics, (2e9, 2e9))
    record_results("cpu", ["vae"], {"vae": "now"}, {"vae": replace(ABOUT, tier="contract-tested")})
    run = client.get_run(trained)
    assert run.data.metrics["test_standard_error"] == 0.25 and run.data.tags["tier"] == "contract-tested"
