"""Whether this machine can hold the benchmark, in one line: `python3 stages/machine.py`, before anything is installed.

Needs nothing but the standard library, and runs with a Python that is too old for the rest.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

OLDEST_PYTHON = (3, 11)
# what `make run` adds, in gigabytes, for each path that is not there yet
GIGABYTES = {".venv/.ok": 2.0, "data/test.npy": 0.8, "runs": 2.0}
SPARE = 0.2


def main() -> None:
    print(machine_line(Path(), sys.version_info[:3]), flush=True)


def machine_line(root: Path, version: tuple[int, ...]) -> str:
    """What is here. Raises: SystemExit with one line that names what is missing and the remedy."""
    shown = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        raise SystemExit(
            f"error: Python {oldest} or newer is needed, this is {shown}; name another: make PYTHON=python{oldest} ..."
        )
    if (root / ".git").exists() and shutil.which("git") is None:
        raise SystemExit("error: git is not installed, and results name their commit; install git")
    needed, free = gigabytes_needed(root, GIGABYTES), shutil.disk_usage(root).free / 1e9
    if free < needed:
        raise SystemExit(
            f"error: {needed:.1f} GB of disk are needed in {root.resolve()}, {free:.1f} GB are free; "
            "free some, or clone to a larger disk"
        )
    npm = "npm"
    if shutil.which("npm") is None:
        is_there = (root / "data" / "test.npy").exists()
        npm = "no npm" if is_there else "no npm (install it if the first source of CIFAR-10 does not answer)"
    return f"Python {shown}, {npm}, {free:.0f} GB of disk free of which at most {needed:.1f} GB are needed"


def gigabytes_needed(root: Path, parts: Mapping[str, float]) -> float:
    """Of the parts that are not there yet, and a little to write in."""
    return SPARE + sum(size for name, size in parts.items() if not (root / name).exists())


if __name__ == "__main__":
    main()
