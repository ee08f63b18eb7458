"""`kill -9` in the middle of a real train stage, the same command again: weights and curve are bit-identical."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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
    return subprocess.Popen([*command, "--checkpoint-every-seconds", "0.01"], cwd=project, env=environment)


def test_a_killed_training_ends_as_an_undisturbed_one(project: Path) -> None:
    files = RunFiles("smoke", MODEL, project)
    assert start(project).wait() == 0
    weights, curve = files.weights.read_bytes(), files.curve.read_bytes()
    files.weights.unlink()

    killed = start(project)
    scratch = project / ".scratch" / "smoke" / MODEL
    until = time.monotonic() + 120
    while not list(scratch.glob("*.previous.pt")) and killed.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert list(scratch.glob("*.pt"))
    assert not files.weights.exists()

    assert start(project).wait() == 0
    assert files.weights.read_bytes() == weights
    assert files.curve.read_bytes() == curve
    assert not list(scratch.glob("*.pt"))
