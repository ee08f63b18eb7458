"""What a training ends with, whichever way the model learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from dgm.runs.records import CurvePoint


@dataclass(frozen=True)
class TrainingResult:
    """A finished or paused training.

    state: parameters and buffers to be saved, on the CPU, averaged where the model is; empty while not finished.
    seconds: of training, over all sessions. num_steps: optimizer steps or EM iterations.
    """

    state: Mapping[str, Tensor]
    curve: Sequence[CurvePoint]
    seconds: float
    images_seen: int
    num_steps: int
    is_finished: bool
