"""In which precision a network computes: what it does in float32 although asked for float64 is less exact."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dgm.model_api.contracts import AutoregressiveModel
from dgm.types import Images

CERTAIN_IN_FLOAT64, CERTAIN_IN_FLOAT32 = 1e-8, 1e-3  # relative changes that rounding does not make
ARITHMETIC = ("conv", "mm", "addmv", "mv", "dot", "fft", "softmax", "norm", "lstm", "gru", "rnn", "attention", "sum")


class _LowPrecision(TorchDispatchMode):
    """Records whether arithmetic had a result of fewer digits than float64."""

    def __init__(self) -> None:
        super().__init__()
        self.found = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        if not self.found and any(part in name for part in ARITHMETIC):
            for tensor in result if isinstance(result, tuple) else (result,):
                if isinstance(tensor, Tensor) and tensor.dtype in (torch.float32, torch.float16, torch.bfloat16):
                    self.found = f"{name} in {str(tensor.dtype).removeprefix('torch.')}"
        return result


@torch.no_grad()
def rounding_of(model: AutoregressiveModel[Any], images: Images) -> tuple[float, str]:
    """The relative change that rounding does not make, and why it is not that of float64; empty if it is.

    Raises: whatever the network raises when it cannot compute in float64.
    """
    with _LowPrecision() as seen:
        model.log_pmf(images)
    return (CERTAIN_IN_FLOAT32, seen.found) if seen.found else (CERTAIN_IN_FLOAT64, "")
