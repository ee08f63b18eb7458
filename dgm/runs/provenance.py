"""Who made a result: commit, versions, machine, memory. Facts that differ between machines and days."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import torch

from dgm.runs.records import Provenance

CODE_PATHS = ("dgm", "stages", "dvc.yaml", "params.yaml")
PACKAGES = ("dgm", "torch", "numpy", "pydantic", "safetensors", "scikit-learn", "constriction", "dvc", "mlflow")
GIT_SECONDS = 10.0


def git_commit() -> str | None:
    """The commit checked out here, 40 hex digits; None without git or before the first commit."""
    return _git("rev-parse", "--verify", "HEAD")


def git_is_dirty() -> bool | None:
    """True if code or parameters differ from the commit (dvc.lock and reports may); None without git."""
    changes = _git("status", "--porcelain", "--", *CODE_PATHS)
    return None if changes is None else bool(changes)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a result may depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        if version := _version(package):
            versions[package] = version
    if "mlflow" not in versions and (version := _version("mlflow-skinny")):
        versions["mlflow-skinny"] = version
    return versions


def device_name(device: str) -> str:
    """The GPU's name, or the CPU's with the number of threads that torch uses."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_cpu_model()}, {threads} thread{'s' if threads > 1 else ''}"


def peak_memory_bytes(device: str) -> int:
    """The most memory used since the process began: allocated by torch on a GPU, resident on a CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class TrainingRecord(Protocol):
    """What is asked of a training's result: its length in seconds, images and steps."""

    @property
    def seconds(self) -> float: ...
    @property
    def images_seen(self) -> int: ...
    @property
    def num_steps(self) -> int: ...


def make_provenance(
    model: str,
    profile: str,
    device: str,
    result: TrainingRecord,
    flops_per_image: tuple[int, int] | None,
    mlflow_run_id: str | None,
) -> Provenance:
    """The record of a training that ends now, on this machine. flops_per_image: forward, whole step; None if fitted."""
    forward_flops, training_flops = flops_per_image or (None, None)
    return Provenance(
        model=model,
        profile=profile,
        device=device_name(device),
        train_seconds=result.seconds,
        images_seen=result.images_seen,
        num_steps=result.num_steps,
        forward_flops_per_image=forward_flops,
        training_flops_per_image=training_flops,
        mlflow_run_id=mlflow_run_id,
        git_commit=git_commit(),
        git_is_dirty=git_is_dirty(),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        packages=package_versions(),
        peak_memory_bytes=peak_memory_bytes(device),
    )


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
