"""Which GPU a job has for its own, where several jobs run side by side on a machine with several."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"
LIST = ("nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader")
LIST_SECONDS = 20.0


def own_gpu(slot: int, gpus: Sequence[str]) -> dict[str, str]:
    """The variable that shows a command one GPU: the slots take them in turn. Empty where there is no choice."""
    return {VARIABLE: gpus[slot % len(gpus)]} if len(gpus) > 1 else {}


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that a command would see, by number or name: those of CUDA_VISIBLE_DEVICES, or all."""
    if VARIABLE in environment:
        text = environment[VARIABLE].replace(",", "\n")
    else:
        try:
            text = subprocess.run(LIST, capture_output=True, text=True, timeout=LIST_SECONDS, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            text = ""
    return [line.strip() for line in text.splitlines() if line.strip()]
