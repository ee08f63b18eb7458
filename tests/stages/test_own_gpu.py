"""Jobs side by side have a GPU each, where there are several."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.own_gpu import own_gpu, visible_gpus

ROOT = Path(__file__).parent.parent.parent


def test_slots_take_the_gpus_in_turn() -> None:
    assert [own_gpu(slot, ["a", "b"]) for slot in range(3)] == [
        {"CUDA_VISIBLE_DEVICES": "a"},
        {"CUDA_VISIBLE_DEVICES": "b"},
        {"CUDA_VISIBLE_DEVICES": "a"},
    ]
    assert own_gpu(1, ["a"]) == own_gpu(1, []) == {}


def test_the_users_choice_is_shared_out_else_all_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3, 1"}) == ["3", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho GPU-x\necho GPU-y\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert visible_gpus({}) == ["GPU-x", "GPU-y"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus({}) == []


def test_make_run_gives_jobs_side_by_side_different_gpus(tmp_path: Path) -> None:
    """The recipe's own line, with a command in place of DVC's that waits until the other job runs too."""
    for name, text in (("nvidia-smi", "echo a; echo b"), ("dvc", "touch $5; while [ ! -e $6 ]; do sleep 0.01; done")):
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\n{text}\n{'echo $CUDA_VISIBLE_DEVICES' if name == 'dvc' else ''}\n")
        tool.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    recipe = subprocess.run(["make", "-n", "run"], cwd=ROOT, env=environment, capture_output=True, text=True).stdout
    line = next(line.strip() for line in recipe.splitlines() if line.strip().startswith("xargs"))
    done = subprocess.run(
        ["sh", "-c", line.replace("-s {}", f"{tmp_path}/{{}}")],
        input="1 ../2\n2 ../1\n".replace("../", f"{tmp_path}/"),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert sorted(done.stdout.split()) == ["a", "b"], done.stderr


def test_a_wrong_call_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-m", "stages.own_gpu", "x"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: x: must be the number of a slot and a command\n"
