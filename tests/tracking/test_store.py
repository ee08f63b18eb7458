from __future__ import annotations

import os
from pathlib import Path

import pytest

from dgm.errors import StageError
from dgm.tracking import mlflow_store
from dgm.tracking.store import find_store

SECRET = "s3cretpart"


@pytest.mark.parametrize(
    ("uri", "path", "is_own"),
    [
        ("", "mlflow.db", True),
        ("  ", "mlflow.db", True),
        ("sqlite:///mlflow.db", "mlflow.db", True),
        ("sqlite:///./sub folder/x.db", "sub folder/x.db", True),
        ("sqlite:///sub%20folder/x.db", "sub folder/x.db", True),
        ("sqlite+pysqlite:///x.db?timeout=3", "x.db", True),
        ("sqlite:///../outside.db", "../outside.db", False),
        ("sqlite:////elsewhere/x.db", "/elsewhere/x.db", False),
    ],
)
def test_a_relative_database_is_the_projects_even_in_an_experiment(
    project: Path, monkeypatch: pytest.MonkeyPatch, uri: str, path: str, is_own: bool
) -> None:
    (copy := project / "temporary copy").mkdir()
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    store = find_store()
    expected = Path(os.path.normpath(project / path))
    assert store.database == expected
    assert store.is_own is is_own
    assert store.artifact_location == ((project if is_own else expected.parent) / "mlruns").as_uri()
    assert store.uri.endswith("?timeout=3") == uri.endswith("?timeout=3")


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:mlflow.db", "sqlite://x.db"])
def test_a_database_without_a_file_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StageError, match=r"names no database file; write sqlite:///mlflow\.db"):
        find_store()


def test_a_folder_is_refused_unless_mlflow_is_told_to_take_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for uri in ("mlruns", "./my runs", "file:./mlruns", "/somewhere/mlruns", "file:///somewhere/mlruns"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
        with pytest.raises(StageError, match=r"no longer records in folders; write sqlite:///mlflow\.db"):
            find_store()
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        inside = (project / ("my runs" if "my" in uri else "mlruns")).as_uri()
        assert find_store().uri == ("file:///somewhere/mlruns" if "somewhere" in uri else inside)


@pytest.mark.parametrize(
    ("user_info", "password"),
    [
        (f"me:{SECRET}", SECRET),
        (f"me:{SECRET}%23%2F%3F%5B%5D%40", f"{SECRET}#/?[]@"),
        (f"me:a@{SECRET}", f"a@{SECRET}"),
        (f"me:a:{SECRET}", f"a:{SECRET}"),
    ],
)
def test_credentials_leave_the_address(
    project: Path, monkeypatch: pytest.MonkeyPatch, user_info: str, password: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://{user_info}@host:5000/mlflow")
    store = find_store()
    assert store.uri == "https://host:5000/mlflow"
    assert store.shown == "https://***@host:5000/mlflow"
    mlflow_store.prepare_environment(store)
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("me", password)
    assert os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] == "true", "MLflow prints the address at a run's end"
    assert SECRET not in store.conceal(f"GET https://{user_info}@host:5000 failed, {password}, {user_info}")


@pytest.mark.parametrize(
    "uri",
    [
        *(
            f"http://me:{before}{SECRET}@host:5000"
            for before in ("a#", "a/", "a?", "a[", "a]", "[a]", "1/", "1#", "1?")
        ),
        *(f"http://me:{SECRET}{mark}b@host" for mark in "#/?["),
        f"http://host:5000/?token={SECRET}",
        f"http://host:5000/?token=a@{SECRET}",
        f"http://host:5000/#{SECRET}",
        f"me:{SECRET}@host:5000",
        f"{SECRET}@host",
        f"me:{SECRET}@host:5000/?token={SECRET}",
        f"http:me:{SECRET}@host",
        f"http://me:{SECRET}@",
        f"http://me:{SECRET}@host:port",
        f"http://me:{SECRET}@[::1",
    ],
)
def test_what_cannot_be_an_address_is_refused_without_its_secret(
    project: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StageError, match="MLFLOW_TRACKING_URI") as caught:
        find_store()
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://me:{SECRET}@host/db",
        f"mysql+pymysql://me:{SECRET}#/?@host:1/db?ssl={SECRET}",
        f"postgresql://host/db?password={SECRET}",
        f"mssql://me:{SECRET}[@host/db",
    ],
)
def test_the_secrets_of_a_database_server_are_hidden(project: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    store = find_store()
    assert store.uri == uri
    assert SECRET not in store.shown
    assert SECRET not in store.conceal(f"cannot connect to {uri}")


def test_a_healthy_address_is_shown_as_it_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for uri in ("http://127.0.0.1:5000", "https://host/mlflow/", "http://[::1]:5000", "http://host/a@b", "databricks"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert find_store().uri == uri
        assert find_store().shown.rpartition("@")[2] in uri


@pytest.mark.parametrize("uri", ["admin:s3cr3t", "uc:s3cr3t", "http://host:5000;token=s3cr3t", "host:5000;s3cr3t"])
def test_a_secret_without_an_at_sign_is_hidden_too(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StageError) as caught:
        find_store()
    assert "s3cr3t" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "host:5000")
    with pytest.raises(StageError, match=r"host:5000: has no scheme"):
        find_store()
