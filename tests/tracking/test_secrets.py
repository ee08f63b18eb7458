"""Nothing that is printed holds the password, the token or the query of the store, whoever made the text."""

from __future__ import annotations

import sys
import threading
from urllib.parse import quote, quote_plus

import pytest

from dgm.errors import StageError
from dgm.tracking.secrets import conceal, conceal_tracebacks
from stages.cli import run_stage

SECRET = "s3cr3tpart"


@pytest.mark.parametrize(
    "uri",
    [
        f"http://me:{SECRET}@host:5000",
        f"http://me:{SECRET}@[::1",
        f"http://me:a@{SECRET}@host",
        *(f"http://me:a{mark}{SECRET}@host" for mark in "#/?[]%:@&"),
        *(f"http://me:{SECRET}{mark}b@host" for mark in "#/?[]%:@&"),
        f"http://me:%25{SECRET}@host",
        f"http://host/?token={SECRET}",
        f"http://host/?token=a@{SECRET}",
        f"http://host;token={SECRET}",
        f"me:{SECRET}@host",
        f"host/?token={SECRET}",
        f"postgresql://me:{SECRET}@host/db?password={SECRET}2",
    ],
)
def test_every_part_of_an_address_is_hidden_in_every_form(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for text in (uri, quote(uri), quote_plus(uri), repr(uri), uri.partition("://")[2], f"<{SECRET}>"):
        assert SECRET not in conceal(f"cannot connect to {text}: refused")
    assert conceal("cannot open /data/train.npy, 3 of 5") == "cannot open /data/train.npy, 3 of 5"


def test_the_password_and_the_token_of_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"a b#{SECRET}")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", f" {SECRET}-token\n")
    for text in (
        f"Basic bWU6YSBiI3MzY3IzdHBhcnQ=, a%20b%23{SECRET}",
        f"reserved characters: 'Bearer  {SECRET}-token\\n'",
    ):
        assert SECRET not in conceal(text)
        assert "bWU6YSBiI3MzY3IzdHBhcnQ=" not in conceal(text)


def test_addresses_of_others_are_shown_without_their_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shown = conceal(f"GET https://me:{SECRET}@host/x?a=1&access_token={SECRET}&b=2 failed; s3://k:{SECRET}@bucket")
    assert shown == "GET https://***@host/x?a=1&access_token=***&b=2 failed; s3://***@bucket"
    paths = "sqlite:////home/me@work/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", paths)
    assert conceal("/home/me@work/mlflow.db is locked, /home/me") == "/home/me@work/mlflow.db is locked, /home/me"


@pytest.mark.parametrize("kind", [StageError, OSError, MemoryError])
def test_a_stage_ends_with_a_line_without_secrets(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@host")

    def fails() -> None:
        raise kind(f"no answer from http://me:{SECRET}@host")

    with pytest.raises(SystemExit) as stopped:
        run_stage(fails)
    assert "no answer from http://***@host" in str(stopped.value.code)
    assert SECRET not in str(stopped.value.code)


def test_so_are_tracebacks_also_those_of_threads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    conceal_tracebacks()

    def fails() -> None:
        raise ValueError(f"token {SECRET}")

    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()
    try:
        fails()
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    printed = capsys.readouterr().err
    assert printed.count("ValueError: token ***") == 2
    assert SECRET not in printed
