"""Runs a command on a GPU of its own, where the machine has several: `python -m stages.own_gpu SLOT COMMAND ...`.

SLOT numbers the commands that run side by side from 0 (`xargs --process-slot-var`). The GPUs are those of
CUDA_VISIBLE_DEVICES, or all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import NoReturn

from dgm.errors import StageError
from stages.cli import run_stage

VARIABLE = "CUDA_VISIBLE_DEVICES"
LIST = ("nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader")
LIST_SECONDS = 20.0


def main() -> NoReturn:
    if len(sys.argv) < 3 or not sys.argv[1].isdigit():
        raise StageError(f"{' '.join(sys.argv[1:])}: must be the number of a slot and a command")
    os.execvpe(sys.argv[2], sys.argv[2:], {**os.environ, **own_gpu(int(sys.argv[1]), visible_gpus(os.environ))})


def own_gpu(slot: int, gpus: list[str]) -> dict[str, str]:
    """The variable that shows a command one GPU: the slots take them in turn. Empty where there is no choice."""
    return {VARIABLE: gpus[slot % len(gpus)]} if len(gpus) > 1 else {}


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that a command would see, by number or name."""
    if VARIABLE in environment:
        text = environment[VARIABLE].replace(",", "\n")
    else:
        try:
            text = subprocess.run(LIST, capture_output=True, text=True, timeout=LIST_SECONDS, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            text = ""
    return [line.strip() for line in text.splitlines() if line.strip()]


if __name__ == "__main__":
    run_stage(main)
