"""SIGTERM, then SIGKILL amid a real train stage, the same command again: weights and curve are bit-identical."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import yaml

from dgm.runs.files import RunFiles

ROOT = Path(__file__).parent.parent.parent
MODEL = "pixelcnn"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with params.yaml and random images of CIFAR-10's shape, where stages can run."""
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "train.npy", rng.integers(0, 256, (50000, 3, 32, 32), dtype=np.uint8))
    np.save(tmp_path / "data" / "test.npy", rng.integers(0, 256, (10000, 3, 32, 32), dtype=np.uint8))
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["models"][MODEL]["smoke"]["training"] |= {"max_steps": 60, "validate_every": 20}
    values["common"]["smoke"]["run"]["threads"] = 1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def start(project: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "tests.data.on_images_that_are_there",
        "stages.train",
        "--model",
        MODEL,
        "--profile",
        "smoke",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "", "DVC_ROOT": str(project)}
    arguments = [*command, "--checkpoint-every-seconds", "0.01"]
    return subprocess.Popen(arguments, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_checkpoints(project: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    scratch = project / ".scratch" / "smoke" / MODEL
    while not list(scratch.rglob("*.previous.pt")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)


def run_status(project: Path) -> str:
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        return database.execute("select status from runs order by start_time desc").fetchone()[0]


def test_a_stopped_or_killed_training_ends_as_an_undisturbed_one(project: Path) -> None:
    files = RunFiles("smoke", MODEL, project)
    undisturbed = start(project)
    assert (undisturbed.communicate(), undisturbed.returncode)[1] == 0
    weights, curve = files.weights.read_bytes(), files.curve.read_bytes()
    files.weights.unlink()

    stopped = start(project)
    wait_for_checkpoints(project, stopped)
    stopped.send_signal(signal.SIGTERM)
    output, errors = stopped.communicate()
    assert stopped.returncode == 75
    assert output.startswith(b"paused at step ") and output.count(b"\n") == 1 and b"Traceback" not in errors
    assert run_status(project) == "KILLED"
    assert not files.weights.exists()

    killed = start(project)
    scratch = project / ".scratch" / "smoke" / MODEL
    for checkpoint in scratch.rglob("*.previous.pt"):
        checkpoint.unlink(missing_ok=True)
    wait_for_checkpoints(project, killed)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert list(scratch.rglob("*.pt")) and not files.weights.exists()

    resumed = start(project)
    assert (resumed.communicate(), resumed.returncode)[1] == 0
    assert files.weights.read_bytes() == weights
    assert files.curve.read_bytes() == curve
    assert run_status(project) == "FINISHED"
    assert not list(scratch.rglob("*.pt")) and not list(project.rglob("runs/**/.*.safetensors.*"))
