"""A short campaign over a small project: what `python -m tests.faults.campaign` does at length."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults import servers

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_few_faults_of_each_kind_end_well() -> None:
    command = [sys.executable, "-m", "tests.faults.campaign", "--quick"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " 0 bad, " in ended.stdout


def test_a_campaign_that_is_stopped_leaves_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(server: servers.Server) -> None:
        process = subprocess.Popen(["sleep", "60"], start_new_session=True)
        started.append(process)
        server._process = process  # pyright: ignore[reportPrivateUsage]

    def stopped() -> None:
        with servers.server_in(tmp_path / "server"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    monkeypatch.setattr(servers.Server, "start", start)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"):
        stopped()
    assert [process.returncode for process in started] == [-signal.SIGKILL]
    assert signal.getsignal(signal.SIGTERM) == before
