"""What is not finite, and the error that stops a training for it before a checkpoint can hold it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dgm.errors import StageError


class NonFiniteError(StageError):
    """A number of a training is NaN or infinite; the text names it, the last good checkpoint and the remedy."""

    def __init__(self, what: str, checkpoint: Path | None, remedy: str) -> None:
        super().__init__(f"{what}; last good checkpoint: {checkpoint or 'none yet'}. {remedy}, and train again")


def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first floating-point tensor with a NaN or infinite element; None if all are finite.

    Waits for the device once, however many tensors there are.
    """
    floating = {name: tensor.detach() for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floating:
        return None
    are_finite: list[bool] = torch.stack([tensor.isfinite().all() for tensor in floating.values()]).tolist()
    return next((name for name, is_finite in zip(floating, are_finite, strict=True) if not is_finite), None)
