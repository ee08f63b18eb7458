"""What MLflow's page reads of a profile's experiment."""

from __future__ import annotations

import json

import pytest
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from dgm.errors import StageError
from dgm.tracking.experiment import NOTE, VIEW_TAG
from dgm.tracking.mlflow_store import open_run


def opened(client: MlflowClient) -> Experiment:
    with open_run("cpu", "vae", "k", None, "train"):
        pass
    experiment = client.get_experiment_by_name("cifar10-cpu")
    assert experiment is not None
    return experiment


def test_it_opens_on_the_view_of_trained_models_with_a_text(client: MlflowClient) -> None:
    experiment = opened(client)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    note = experiment.tags[NOTE]
    assert "**cpu**" in note and "https://arxiv.org/abs/1601.06759" in note
    place = f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey=results"
    assert note.startswith(f"[**Table of results**]({place})")


def test_a_saved_view_has_the_figures_as_columns_the_best_first(client: MlflowClient) -> None:
    view = json.loads(opened(client).tags[VIEW_TAG])
    assert set(view) == {"name", "createdAt", "updatedAt", "state"} and isinstance(view["createdAt"], int)
    state = json.loads(view["state"])
    figures = {"test_bits_per_subpixel", "test_standard_error", "train_seconds"}
    assert {f"metrics.`{name}`" for name in figures} | {"tags.`tier`"} <= set(state["selectedColumns"])
    assert state["orderByKey"] == "metrics.`test_bits_per_subpixel`" and state["orderByAsc"]
    assert set(state["selectedColumns"]) < set(state["columnOrder"]) == set(state["columnWidths"])


def test_a_text_that_a_person_wrote_stays_and_what_is_missing_is_added(client: MlflowClient) -> None:
    experiment_id = client.create_experiment("cifar10-cpu")
    client.set_experiment_tag(experiment_id, NOTE, "mine")
    tags = opened(client).tags
    assert tags[NOTE] == "mine" and "mlflow.experimentKind" in tags


def test_another_process_may_be_first(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    set_tag = MlflowClient.set_experiment_tag

    def second(self: MlflowClient, experiment_id: str, key: str, value: str) -> None:
        set_tag(self, experiment_id, key, value)
        raise MlflowException("UNIQUE constraint failed")

    def away(*_: object) -> None:
        raise MlflowException("no answer")

    monkeypatch.setattr(MlflowClient, "set_experiment_tag", away)
    with pytest.raises(StageError, match="no answer"):
        opened(client)
    monkeypatch.setattr(MlflowClient, "set_experiment_tag", second)
    assert VIEW_TAG in opened(client).tags


def test_a_run_names_its_command(client: MlflowClient) -> None:
    opened(client)
    [run] = client.search_runs([opened(client).experiment_id], max_results=1)
    assert run.data.tags["mlflow.source.name"] == "python -m stages.train --model vae --profile cpu"
