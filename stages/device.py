"""Where a stage computes: the device, its threads and its precision."""

from __future__ import annotations

import torch

from dgm.config import RunConfig
from dgm.runs import StageError


def prepare_device(config: RunConfig, is_incremental: bool = False) -> torch.device:
    """The device of params.yaml, with its threads. Raises: StageError if there is no GPU where one is asked for.

    Incremental work (sampling, coding) takes one thread: its steps are so small that a second one is only waited for.
    """
    torch.set_num_threads(1 if is_incremental else config.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if config.device == "cuda" and not torch.cuda.is_available():
        raise StageError("device is cuda in params.yaml, but torch sees no GPU; set common.<profile>.run.device to cpu")
    return torch.device(config.device)
