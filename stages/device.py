"""Where a stage computes: the device, its threads and its precision."""

from __future__ import annotations

import os

import torch

from dgm.config.sections import RunConfig
from dgm.errors import StageError


def prepare_device(config: RunConfig, device: str | None = None, is_incremental: bool = False) -> torch.device:
    """The device of params.yaml, or `device` of the command line, with the threads of params.yaml where cores allow.

    Incremental work (sampling, coding) takes one thread: its steps are so small that a second one is only waited for.
    Raises: StageError if there is no GPU where one is asked for.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(1 if is_incremental else min(config.threads, cores))
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # batches keep their shape, so trying the kernels once pays
    if (device or config.device) == "cuda" and not torch.cuda.is_available():
        raise StageError(
            "device is cuda in params.yaml, but torch sees no GPU; give --device cpu, or set "
            "common.<profile>.run.device to cpu"
        )
    return torch.device(device or config.device)
