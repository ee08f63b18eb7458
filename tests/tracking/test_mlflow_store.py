from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from dgm.tracking.mlflow_store import TrackedRun, open_run
from dgm.tracking.untracked_run import UntrackedRun
from tests.tracking import processes


def points(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    return [file.path for file in client.list_artifacts(run_id, folder)]


def test_two_stages_share_one_run(client: MlflowClient, project: Path) -> None:
    curve = project / "curve.csv"
    curve.write_text("step\n1\n")
    with open_run("cpu", "vae", "k1", None, "train") as train:
        train.log_params({"model": {"width": 64, "kinds": ["a", "b"]}, "seed": 1})
        for step in range(3):
            train.log_metrics({"train_bits_per_subpixel": 5.0 - step, "term/weighted (64)": 1.0}, step)
        train.log_artifact(curve, "curves")
        train.flush()
        assert client.get_run(train.run_id).info.status == "RUNNING"
    assert client.get_run(train.run_id).info.status == "FINISHED"
    with open_run("cpu", "vae", "k2", train.run_id, "evaluate") as evaluate:
        assert client.get_run(train.run_id).info.status == "RUNNING"
        evaluate.log_params({"seed": 1})
        evaluate.log_metrics({"test_bits_per_subpixel": 3.5}, 0)
    assert evaluate.run_id == train.run_id
    run = client.get_run(train.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "vae"
    assert client.get_experiment(run.info.experiment_id).name == "cifar10-cpu"
    assert run.data.params == {"model.width": "64", "model.kinds": "['a', 'b']", "seed": "1"}
    assert points(client, train.run_id, "train_bits_per_subpixel") == [(0, 5.0), (1, 4.0), (2, 3.0)]
    assert points(client, train.run_id, "term/weighted _64_") == [(0, 1.0), (1, 1.0), (2, 1.0)]
    assert points(client, train.run_id, "test_bits_per_subpixel") == [(0, 3.5)]
    assert artifacts(client, train.run_id, "curves") == ["curves/curve.csv"]
    assert (project / "mlruns" / train.run_id / "artifacts" / "curves" / "curve.csv").exists()
    expected = {"model": "vae", "profile": "cpu", "key": "k1"}
    assert {name: run.data.tags[name] for name in expected} == expected
    assert len(client.search_runs([run.info.experiment_id])) == 1
    assert not (project / ".scratch").exists(), "nothing was left undelivered"


def test_a_changed_parameter_gets_the_next_version(client: MlflowClient, project: Path) -> None:
    run_id = None
    for value in (1, 4, 4, 1, 7):
        with open_run("cpu", "vae", "k", run_id, "evaluate") as run:
            run.log_params({"num_draws": value})
            run.log_params({"num_draws": value})
        run_id = run.run_id
    assert run_id is not None
    expected = {"num_draws": "1", "num_draws_v2": "4", "num_draws_v3": "7"}
    assert client.get_run(run_id).data.params == expected
    assert not (project / ".scratch").exists(), "MLflow refuses a batch that names a parameter twice"


def test_a_resumed_training_records_each_step_once(client: MlflowClient) -> None:
    killed = open_run("cpu", "vae", "k", None, "train")
    for step in range(1, 5):
        killed.log_metrics({"bits": 1.0 * step}, step)
    killed.flush()
    with open_run("cpu", "vae", "k", killed.run_id, "train") as resumed:
        for step in range(3, 7):
            resumed.log_metrics({"bits": 1.0 * step}, step)
    assert points(client, killed.run_id, "bits") == [(step, 1.0 * step) for step in range(1, 7)]
    with open_run("cpu", "vae", "k", killed.run_id, "evaluate") as again:
        again.log_metrics({"bits": 9.0}, 1)
    assert (1, 9.0) in points(client, killed.run_id, "bits")
    killed.finish("RUNNING")


def test_a_run_unknown_to_this_store_is_named_by_the_new_one(client: MlflowClient) -> None:
    with open_run("cpu", "vae", "k", "0" * 32, "evaluate") as run:
        pass
    assert run.run_id != "0" * 32
    assert client.get_run(run.run_id).data.tags["continues"] == "0" * 32


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_status_tells_how_the_stage_ended(client: MlflowClient, error: type[BaseException], status: str) -> None:
    def stage(run: TrackedRun | UntrackedRun) -> None:
        with run:
            run.log_metrics({"bits": 1.0}, 1)
            raise error

    run = open_run("cpu", "vae", "k", None, "train")
    with pytest.raises(error):
        stage(run)
    assert client.get_run(run.run_id).info.status == status
    assert points(client, run.run_id, "bits") == [(1, 1.0)]


def test_a_paused_training_stays_open(client: MlflowClient, project: Path) -> None:
    def stage(run: TrackedRun | UntrackedRun) -> None:
        with run:
            run.log_metrics({"bits": 1.0}, 1)
            run.finish("RUNNING")
            raise SystemExit(3)

    run = open_run("cpu", "vae", "k", None, "train")
    with pytest.raises(SystemExit):
        stage(run)
    info = client.get_run(run.run_id).info
    assert (info.status, info.end_time) == ("RUNNING", None)
    assert points(client, run.run_id, "bits") == [(1, 1.0)]
    assert not (project / ".scratch").exists(), "the end of the with block records nothing more"


def test_a_new_training_ends_what_killed_ones_of_the_same_settings_left_running_here(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(profile: str, model: str, key: str) -> str:
        run = open_run(profile, model, key, None, "train")
        run.finish("RUNNING")
        return run.run_id

    left = {
        "killed": begin("cpu", "vae", "key"),
        "other settings": begin("cpu", "vae", "key2"),
        "other model": begin("cpu", "made", "key"),
        "other profile": begin("smoke", "vae", "key"),
    }
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("platform.node", lambda: "elsewhere")
        left["other machine"] = open_run("cpu", "vae", "key", None, "evaluate").run_id

    def statuses() -> dict[str, str]:
        return {name: client.get_run(run_id).info.status for name, run_id in left.items()}

    open_run("cpu", "vae", "key", left["killed"], "train").finish("RUNNING")
    open_run("cpu", "vae", "key", None, "evaluate").finish("FINISHED")
    assert set(statuses().values()) == {"RUNNING"}, "only a training that begins a run of its own ends others"
    open_run("cpu", "vae", "key", None, "train").finish("FINISHED")
    assert statuses() == {name: "KILLED" if name == "killed" else "RUNNING" for name in left}


def test_commit_and_experiment_become_tags(
    client: MlflowClient, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], cwd=project, check=True)
    (project / "params.yaml").write_text("profile: cpu\n")
    monkeypatch.setenv("DVC_EXP_NAME", "tidy-fox")
    with open_run("cpu", "vae", "k", None, "train") as run:
        pass
    tags = client.get_run(run.run_id).data.tags
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, check=True, capture_output=True, text=True)
    assert tags["mlflow.source.git.commit"] == commit.stdout.strip()
    assert tags["git.dirty"] == "true"
    assert tags["dvc.exp"] == "tidy-fox"


def test_the_store_lies_in_the_main_project_even_in_an_experiment(
    client: MlflowClient, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = project / "temporary copy"
    copy.mkdir()
    (copy / "note.txt").write_text("x")
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(project))
    with open_run("cpu", "vae", "k", None, "train") as run:
        run.log_artifact(Path("note.txt"), None)
    assert artifacts(client, run.run_id) == ["note.txt"]
    assert [file.name for file in copy.iterdir()] == ["note.txt"]


def test_a_deleted_experiment_is_restored(client: MlflowClient) -> None:
    client.delete_experiment(client.create_experiment("cifar10-cpu"))
    with open_run("cpu", "vae", "k", None, "train") as run:
        pass
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_processes_that_create_the_store_at_once_all_succeed(project: Path) -> None:
    began = time.monotonic() + 0.5

    def record() -> None:
        time.sleep(max(0.0, began - time.monotonic()))
        with open_run("cpu", "vae", "k", None, "train") as run:
            run.log_metrics({"bits": 1.0}, 1)

    children = [processes.start(record) for _ in range(2)]
    assert [processes.exit_code(child) for child in children] == [0, 0]
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cifar10-cpu")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [points(client, run.info.run_id, "bits") for run in runs] == [[(1, 1.0)]] * 2


def test_a_batch_that_the_store_refuses_is_kept_beside_it(
    client: MlflowClient, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_run("cpu", "vae", "k", None, "train") as run:
        client.log_batch(run.run_id, metrics=[Metric("bits", 1.0, 0, 0)])
        client.log_param(run.run_id, "width", "1")
        run.log_params({"width": 2})
        run.flush()
        run.log_metrics({"bits": 2.0}, 1)
    assert points(client, run.run_id, "bits") == [(0, 1.0), (1, 2.0)]
    assert client.get_run(run.run_id).info.status == "FINISHED"
    kept = project / ".scratch" / "mlflow-undelivered" / f"{run.run_id}.jsonl"
    assert '"width"' in kept.read_text()
    assert str(kept) in capsys.readouterr().err
