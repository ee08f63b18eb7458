"""models.<model>.<profile>.training: every number of a training run that can change its result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dgm.config import Config


class FitConfig(Config):
    """Training of a model that is fitted: 0 iterations for closed forms, else the number of EM iterations."""

    num_iterations: int = Field(ge=0)


class TrainingConfig(Config):
    """Training by gradient. Progress runs from 0 to 1 by steps or by seconds, whichever budget ends first.

    The learning rate rises linearly over `warmup_fraction` of the progress, stays, and falls to zero over the last
    `decay_fraction` (Haegele et al. 2024, arXiv 2405.18392). `max_seconds` counts training time over all sessions.
    `validation_batch_size`: validation noise is drawn batch by batch, so this is a number of the curve.
    """

    optimizer: Literal["adamw", "muon"]
    learning_rate: float = Field(gt=0)
    muon_learning_rate: float = Field(gt=0)
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    batch_size: int = Field(gt=0)
    max_steps: int = Field(gt=0)
    max_seconds: float | None = Field(gt=0)
    warmup_fraction: float = Field(ge=0, lt=1)
    decay_fraction: float = Field(ge=0, le=1)
    gradient_clip: float = Field(gt=0)
    ema_decay: float = Field(ge=0, lt=1)
    horizontal_flip: bool
    precision: Literal["float32", "bfloat16"]
    compile: bool
    channels_last: bool
    validate_every: int = Field(gt=0)
    num_validation_images: int = Field(gt=0, le=5000)
    validation_batch_size: int = Field(gt=0)
