"""Which GPU a job has for its own, where several jobs run side by side on a machine with several."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"
LIST = ("nvidia-smi", "-L")
LIST_SECONDS = 20.0
NAME = re.compile(r"(GPU|MIG)-\S+")


def own_gpu(slot: int, gpus: Sequence[str]) -> dict[str, str]:
    """The variable that shows a command one GPU: the slots take them in turn. Empty where there is no choice."""
    return {VARIABLE: gpus[slot % len(gpus)]} if len(gpus) > 1 else {}


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that a command would see, by number or name: those of CUDA_VISIBLE_DEVICES, or all.

    All: as nvidia-smi lists them; a GPU that is cut into parts (MIG) stands for these. None where it does not answer.
    """
    if VARIABLE in environment:
        return chosen(environment[VARIABLE])
    try:
        return listed(subprocess.run(LIST, capture_output=True, text=True, timeout=LIST_SECONDS, check=True).stdout)
    except (OSError, subprocess.SubprocessError):
        return []


def chosen(text: str) -> list[str]:
    """The GPUs of a value of CUDA_VISIBLE_DEVICES.

    As CUDA reads it: what is neither a number nor a name (-1 above all) ends the list, and one that is there twice
    empties it.
    """
    gpus: list[str] = []
    for entry in map(str.strip, text.split(",")):
        if not (entry.isdecimal() or NAME.fullmatch(entry)):
            break
        gpus.append(str(int(entry)) if entry.isdecimal() else entry)
    return gpus if len(set(gpus)) == len(gpus) else []


def listed(text: str) -> list[str]:
    """The GPUs in what `nvidia-smi -L` prints: under a GPU that is cut into parts there is a line for each of them."""
    gpus: list[str] = []
    for name in re.findall(r"\(UUID: ((?:GPU|MIG)-[^)\s]+)\)", text):
        if name.startswith("MIG-") and gpus and gpus[-1].startswith("GPU-"):
            gpus.pop()
        gpus.append(name)
    return gpus
