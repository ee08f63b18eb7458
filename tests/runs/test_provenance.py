from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import torch

from dgm.runs import provenance
from dgm.runs.provenance import (
    device_name,
    git_commit,
    git_is_dirty,
    make_provenance,
    package_versions,
    peak_memory_bytes,
)
from dgm.runs.records import Provenance, read_record, write_record


@dataclass(frozen=True)
class Training:
    seconds: float
    images_seen: int
    num_steps: int


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(project: Path) -> Path:
    (project / "dgm").mkdir()
    for name in ("dgm/model.py", "params.yaml", "dvc.lock"):
        (project / name).write_text("first\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return project


def test_commit_is_the_one_checked_out(repository: Path) -> None:
    assert git_commit() == git("rev-parse", "HEAD")


@pytest.mark.parametrize(("changed", "is_dirty"), [("dgm/model.py", True), ("params.yaml", True), ("dvc.lock", False)])
def test_dirty_means_code_or_parameters(repository: Path, changed: str, is_dirty: bool) -> None:
    assert git_is_dirty() is False
    (repository / changed).write_text("second\n")
    assert git_is_dirty() is is_dirty


def test_without_a_repository_nothing_is_claimed(project: Path) -> None:
    assert git_commit() is None
    assert git_is_dirty() is None


def test_without_git_nothing_is_claimed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert git_commit() is None
    assert git_is_dirty() is None


def test_versions_are_the_installed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = package_versions()
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == importlib.metadata.version("torch")
    assert any(name.startswith("mlflow") for name in versions)
    monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "no-such-package"))
    assert set(package_versions()) - {"mlflow-skinny"} == {"python", "numpy"}


def test_cpu_is_named_with_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    name = device_name("cpu")
    assert name.endswith(", 3 threads")
    assert len(name) > len(", 3 threads")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert device_name("cpu").endswith(", 1 thread")


def test_gpu_is_named_by_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card of {device}")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 42)
    assert device_name("cuda") == "card of cuda"
    assert peak_memory_bytes("cuda") == 42


def test_peak_memory_is_in_bytes() -> None:
    assert 50e6 < peak_memory_bytes("cpu") < 1e12


def test_record_of_a_training(repository: Path) -> None:
    result = Training(seconds=12.5, images_seen=640, num_steps=10)
    record = make_provenance("vae", "cpu", "cpu", result, (300, 900), "r1")
    path = repository / "vae.json"
    write_record(path, record)
    assert read_record(path, Provenance) == record
    assert (record.model, record.profile, record.mlflow_run_id) == ("vae", "cpu", "r1")
    assert (record.train_seconds, record.images_seen, record.num_steps) == (12.5, 640, 10)
    assert (record.forward_flops_per_image, record.training_flops_per_image) == (300, 900)
    assert (record.git_commit, record.git_is_dirty) == (git_commit(), False)
    assert datetime.fromisoformat(record.finished_at).tzinfo is not None
    fitted = make_provenance("ppca", "cpu", "cpu", result, None, "r1")
    assert (fitted.forward_flops_per_image, fitted.training_flops_per_image) == (None, None)
