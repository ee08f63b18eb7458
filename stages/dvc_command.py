"""DVC as stages call it: one command, one line if it fails; and what dvc.lock says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dgm.errors import StageError

LOCK_FILE = Path("dvc.lock")


def dvc(*arguments: str) -> str:
    """What a DVC command prints; its stages get this environment's Python. Raises: StageError with its last line."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, env=environment())
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise StageError(f"dvc {arguments[0]} failed: {lines[-1]}")
    return done.stdout


def command(*arguments: str) -> list[str]:
    """The command line; it waits while another process of DVC writes."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]


def environment() -> dict[str, str]:
    """The environment, with this Python first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path}


def locked_stages() -> Mapping[str, Any]:
    """Stage name -> what dvc.lock says of it. Raises: StageError if it cannot be read."""
    try:
        return yaml.load(LOCK_FILE.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise StageError(f"{LOCK_FILE}: cannot be read ({error}); git checkout {LOCK_FILE}") from None
