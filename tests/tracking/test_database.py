from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from dgm.errors import StageError
from dgm.runs.locks import FileLock
from dgm.tracking import database as database_module
from dgm.tracking import mlflow_store
from dgm.tracking.mlflow_store import open_run
from dgm.tracking.store import find_store

ODD_NAMES = ["a%20b", "a?b=c", "a#b", "a b", "a=b&c", "äö漢", "a%", "a[b]", "a%2Fb", "a;b,c", "a'b\"c", "a\\b", "a@b:c"]


@pytest.fixture
def database(project: Path, empty_database: Path) -> Path:
    return Path(shutil.copy(empty_database, project / "mlflow.db"))


def change_schema(database: Path, revision: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        connection.commit()


def older(database: Path) -> None:
    head, known = database_module.schema_revisions()
    change_schema(database, min(known - {head}))


def foreign(database: Path) -> None:
    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (older, r"older MLflow than .* run `mlflow db upgrade 'sqlite:////"),
        (lambda path: change_schema(path, "ffffffffffff"), r"newer MLflow than .*install that version"),
        (lambda path: path.write_text("no database" * 500), r"is not a database .*move the file away"),
        (foreign, r"is a database of another program; name another file"),
        (lambda path: os.truncate(path, 9000), r"(is damaged|is not a database|disk reports an error)"),
        (lambda path: (path.unlink(), path.mkdir()), r"cannot be opened .*make the file and its folder"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_with_the_remedy_that_fits(
    database: Path, break_it: Callable[[Path], object], expected: str
) -> None:
    break_it(database)
    before = database.read_bytes() if database.is_file() else b""
    with pytest.raises(StageError, match=expected) as caught:
        open_run("cpu", "vae", "k", None, "train")
    assert str(database) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert before == (database.read_bytes() if database.is_file() else b""), "a file that is refused is left as it is"


def test_a_database_that_is_locked_stops_training_in_time(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert database_module.BUSY_SECONDS <= 10
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.2)
    for lock in ("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"):
        with closing(sqlite3.connect(database, isolation_level=None)) as writer:
            writer.execute(lock)
            with pytest.raises(StageError, match=r"another program is writing to it .*wait until it has finished, or"):
                open_run("cpu", "vae", "k", None, "train")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("SQLITE_FULL", "make room on the disk"), ("SQLITE_READONLY_DIRECTORY", "make the file and its folder writable")],
)
def test_a_full_disk_and_a_read_only_folder_are_named(
    database: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    def refuse(*arguments: object) -> None:
        error = sqlite3.OperationalError("refused")
        error.sqlite_errorname = name
        raise error

    monkeypatch.setattr(database_module, "transaction", refuse)
    with pytest.raises(StageError, match=expected):
        open_run("cpu", "vae", "k", None, "train")


def test_a_folder_that_cannot_be_made_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "file").write_text("in the way")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///file/mlflow.db")
    with pytest.raises(StageError, match="make the folder writable"):
        open_run("cpu", "vae", "k", None, "train")


def test_a_disk_that_does_not_answer_stops_training_in_time(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mlflow_store.OPENING_SECONDS < 20
    monkeypatch.setattr(mlflow_store, "OPENING_SECONDS", 0.3)
    monkeypatch.setattr(database_module, "check_schema", lambda path: time.sleep(1.5))
    began = time.monotonic()
    with pytest.raises(StageError, match=r"no answer within .*disk does not answer"):
        open_run("cpu", "vae", "k", None, "train")
    assert time.monotonic() - began < 1.2


def test_another_process_that_creates_the_database_and_gets_no_further_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_store, "OPENING_SECONDS", 0.3)
    lock = FileLock(project / "mlflow.db.lock")
    lock.acquire(0.0)
    lock.path.write_text("77")
    with pytest.raises(StageError, match=r"process 77 is creating it; wait until it has finished, or stop it"):
        open_run("cpu", "vae", "k", None, "train")


def test_a_killed_creation_leaves_nothing_that_counts(
    project: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables are made in another file, which takes the database's name at the end."""
    (project / "mlflow.db.123.new").write_bytes(b"half")
    (project / "mlflow.db.123.new-journal").write_bytes(b"half")
    (project / "mlflow.db").write_bytes(b"")

    class CopiedStore:
        def __init__(self, uri: str, artifacts: str) -> None:
            shutil.copy(empty_database, uri.removeprefix("sqlite+pysqlite:///"))
            assert (project / "mlflow.db").stat().st_size == 0
            self.engine = self

        def dispose(self) -> None: ...

    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", CopiedStore)
    database_module.create_if_absent(project / "mlflow.db", 5.0)
    assert [path.name for path in project.iterdir()] == ["mlflow.db"]
    assert (project / "mlflow.db").read_bytes() == empty_database.read_bytes()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_project_may_have_any_name(
    project: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = project / name
    folder.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(folder))
    shutil.copy(empty_database, folder / "mlflow.db")
    (project / "note.txt").write_text("x")
    with open_run("cpu", "vae", "k", None, "train") as run:
        run.log_metrics({"bits": 1.0}, 1)
        run.log_artifact(project / "note.txt", None)
    assert (folder / "mlruns" / run.run_id / "artifacts" / "note.txt").read_text() == "x"
    assert sorted(path.name for path in project.iterdir()) == sorted([name, "note.txt"])
    assert sorted(path.name for path in folder.iterdir()) == ["mlflow.db", "mlruns"]
    client = MlflowClient(find_store().uri)
    assert client.get_run(run.run_id).data.metrics == {"bits": 1.0}
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["note.txt"]


@pytest.mark.parametrize("copy_or_move", [shutil.copytree, shutil.move])
def test_records_go_where_the_project_is(
    project: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch, copy_or_move: Callable[[str, str], object]
) -> None:
    old, new = project / "old", project / "new place"
    (note := project / "note.txt").write_text("x")
    old.mkdir()
    shutil.copy(empty_database, old / "mlflow.db")
    monkeypatch.setenv("DVC_ROOT", str(old))
    with open_run("cpu", "vae", "k", None, "train") as first:
        first.log_artifact(note, "before")
    running = open_run("cpu", "vae", "k", None, "train")
    running.finish("RUNNING")
    own = MlflowClient(find_store().uri).create_experiment("mine", artifact_location="file:///chosen/mlruns")
    copy_or_move(str(old), str(new))
    _artifact_repos_cache.clear()  # MLflow's, of this process; commands are processes of their own
    old_files = sorted(old.rglob("*"))
    monkeypatch.setenv("DVC_ROOT", str(new))
    with open_run("cpu", "vae", "k", first.run_id, "report") as resumed:
        resumed.log_artifact(note, "after")
        resumed.log_metrics({"bits": 1.0}, 1)
    with open_run("cpu", "vae", "k", None, "train") as begun:
        begun.log_artifact(note, "new")
    assert resumed.run_id == first.run_id
    assert sorted(old.rglob("*")) == old_files
    for run_id, folder in ((first.run_id, "before"), (first.run_id, "after"), (begun.run_id, "new")):
        assert (new / "mlruns" / run_id / "artifacts" / folder / "note.txt").read_text() == "x"
    client = MlflowClient(find_store().uri)
    assert {file.path for file in client.list_artifacts(first.run_id)} == {"before", "after"}
    assert client.get_run(first.run_id).data.metrics == {"bits": 1.0}
    assert client.get_run(running.run_id).info.status == "KILLED", "its process is not of this place"
    assert client.get_experiment(own).artifact_location == "file:///chosen/mlruns"


@pytest.mark.parametrize("before", ["file:///old/a%20b/mlruns", "file:///old/mlruns/", "/old/mlruns", "/old/mlruns//"])
def test_a_run_goes_where_its_experiment_goes(database: Path, before: str) -> None:
    """However the place of before is written; MLflow gives a run its own without the slash at the end."""
    with database_module.transaction(database) as connection:
        connection.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location) VALUES (7, 'cifar10-cpu', ?)", (before,)
        )
        connection.execute(
            "INSERT INTO runs (run_uuid, experiment_id, artifact_uri) VALUES ('r', 7, ?)",
            (f"{before.rstrip('/')}/r/artifacts",),
        )
        database_module.move_artifacts(connection, "file:///new/mlruns")
        assert connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 7").fetchall() == [
            ("file:///new/mlruns",)
        ]
        assert connection.execute("SELECT artifact_uri FROM runs").fetchall() == [("file:///new/mlruns/r/artifacts",)]


@pytest.mark.parametrize("location", ["s3://bucket/mlruns", "file:///big/disk/artifacts", "/big/disk/artifacts"])
def test_a_place_that_somebody_chose_stays(client: MlflowClient, location: str) -> None:
    chosen = client.create_experiment("cifar10-cpu", artifact_location=location)
    open_run("cpu", "vae", "k", None, "train").finish("FINISHED")
    assert client.get_experiment(chosen).artifact_location == location


def test_a_database_outside_the_project_is_not_rewritten(
    project: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Path(shutil.copy(empty_database, project / "shared.db"))
    (inside := project / "inside").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(inside))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}")
    client = MlflowClient(f"sqlite:///{shared}")
    chosen = client.create_experiment("cifar10-cpu", artifact_location="file:///other/project/mlruns")
    open_run("cpu", "vae", "k", None, "train").finish("FINISHED")
    assert client.get_experiment(chosen).artifact_location == "file:///other/project/mlruns"


def test_processor_time_of_a_process_grows_while_it_computes() -> None:
    before = sum(map(int, database_module.processor_ticks(str(os.getpid()))))
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert sum(map(int, database_module.processor_ticks(str(os.getpid())))) >= before + 5
    assert database_module.processor_ticks("unknown") == []
