"""Servers that refuse, answer no or never answer: each stops the stage with one line that shows no password."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dgm.errors import StageError
from dgm.tracking import mlflow_store
from dgm.tracking.causes import StoreAwayError
from dgm.tracking.mlflow_store import check_store, open_run


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_refusing_server_stops_the_stage_with_a_clear_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    began = time.monotonic()
    with pytest.raises(
        StoreAwayError, match=rf"store http://\*\*\*@127.0.0.1:{port} cannot be used: cannot be reached"
    ) as caught:
        open_run("cpu", "vae", "k", None, "train")
    assert time.monotonic() - began < 20
    assert "Connection refused" in str(caught.value)
    assert "MLFLOW_TRACKING_URI" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_silent_server_stops_the_stage_within_the_time_limit(
    project: Path, monkeypatch: pytest.MonkeyPatch, silent_server: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
    monkeypatch.setattr(mlflow_store, "OPENING_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(StoreAwayError, match="no answer within"):
        open_run("cpu", "vae", "k", None, "train")
    assert time.monotonic() - began < 3
    assert mlflow_store.MLFLOW_DEFAULTS["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "5"


class Refusing(BaseHTTPRequestHandler):
    """Answers every request with the server's status and remembers the credentials that came."""

    def do_GET(self) -> None:
        assert isinstance(self.server, RefusingServer)
        self.server.credentials.append(self.headers.get("Authorization", ""))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.text)

    def log_message(self, format: str, *arguments: object) -> None: ...


class RefusingServer(ThreadingHTTPServer):
    def __init__(self, status: int, text: bytes = b"no") -> None:
        super().__init__(("127.0.0.1", 0), Refusing)
        self.status, self.text, self.credentials = status, text, list[str]()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "it refuses the user name or password .*set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (403, "it refuses the user name or password"),
        (404, "correct MLFLOW_TRACKING_URI, or unset"),
    ],
)
def test_a_server_that_answers_no_is_named_without_its_password(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    status: int,
    expected: str,
) -> None:
    server = RefusingServer(status)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:s3cr%23t@127.0.0.1:{server.server_port}")
    with pytest.raises(StageError, match=expected) as caught:
        open_run("cpu", "vae", "k", None, "train")
    server.shutdown()
    server.server_close()
    assert base64.b64decode(server.credentials[0].removeprefix("Basic ")) == b"me:s3cr#t"
    printed = "".join(capfd.readouterr()) + str(caught.value)
    assert "s3cr" not in printed
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "text", "is_away", "expected"),
    [
        (503, b"busy", True, "503"),
        (429, b"slowly", True, "429"),
        (404, b"no", False, "correct MLFLOW_TRACKING_URI"),
        (401, b"no", False, "user name or password"),
        (403, b"Invalid Host header - possible DNS rebinding attack detected", False, "--allowed-hosts"),
    ],
)
def test_only_what_may_pass_is_worth_another_try(
    project: Path, monkeypatch: pytest.MonkeyPatch, status: int, text: bytes, is_away: bool, expected: str
) -> None:
    server = RefusingServer(status, text)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StageError, match=expected) as caught:
        check_store("cpu")
    server.shutdown()
    server.server_close()
    assert isinstance(caught.value, StoreAwayError) == is_away
