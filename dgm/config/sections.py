"""The typed sections of params.yaml: what each key means, in which unit, and which values are allowed."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from dgm.config.parse import Config
from dgm.types import CIFAR10, NUM_TEST_IMAGES

MAX_IMAGES = 50_000  # of CIFAR-10, and so of a batch
MAX_STEPS = 100_000_000
MAX_DRAWS = 100_000
MAX_THREADS = 4096
MAX_RATE = 1000.0
MIN_TEMPERATURE = 1e-6  # logits are divided by it in float32
MAX_NORM = 1e12  # of gradients: so large, nothing is clipped
MAX_SECONDS = 1e9
MAX_SEED = 2**63 - 1
LEAST_TRAIN_IMAGES = 2000  # scored outside the smoke profile: a standard error of some 0.013 bits


class RunConfig(Config):
    """common.<profile>.run: what training and evaluation of every model share."""

    seed: int = Field(ge=0, le=MAX_SEED)
    threads: int = Field(gt=0, le=MAX_THREADS)
    device: Literal["cpu", "cuda"]
    num_training_images: Literal[45000, 50000]


class CommonEvaluationConfig(Config):
    """common.<profile>.evaluation: how many images are scored, from the first on.

    Outside the smoke profile all test images, and at least LEAST_TRAIN_IMAGES of the sample of training images.
    """

    num_test_images: int = Field(gt=0, le=NUM_TEST_IMAGES)
    num_train_images: int = Field(gt=0, le=NUM_TEST_IMAGES)


class SamplingConfig(Config):
    """common.<profile>.sampling: the grid of samples and of completions."""

    num_images: int = Field(gt=0, le=MAX_DRAWS)
    temperature: float = Field(ge=MIN_TEMPERATURE, le=MAX_RATE)
    num_completions: int = Field(ge=0, le=NUM_TEST_IMAGES)


class CompressionConfig(Config):
    """models.<model>.<profile>.compression: how many test images are compressed to a file and read back."""

    num_images: int = Field(gt=0, le=NUM_TEST_IMAGES)


class ConformanceConfig(Config):
    """common.<profile>.conformance: how much is asked of every trained model, on the first test images.

    num_changes: sub-pixels that are changed one after the other, by one level and to the far end each. num_endings:
    places of the order from which on everything is replaced. num_images: how many are scored in other company.
    """

    num_changes: int = Field(gt=0, le=MAX_DRAWS)
    num_endings: int = Field(gt=0, le=MAX_DRAWS)
    num_images: int = Field(gt=1, le=1000)


class CodecsConfig(Config):
    """common.<profile>.codecs: how many test images the general codecs compress, a square number of them."""

    num_images: int = Field(gt=0, le=NUM_TEST_IMAGES)

    @field_validator("num_images")
    @classmethod
    def _tiles_a_square(cls, count: int) -> int:
        if math.isqrt(count) ** 2 != count:
            raise ValueError(f"must be a square number (such as {math.isqrt(count) ** 2}): they are joined to a square")
        return count


class PPCALadderConfig(Config):
    """common.<profile>.ppca_ladder: the numbers of components that PPCA is scored with.

    num_fit_images: how many training images, the first ones, it is fitted on; null for all.
    em_components: those of num_components that EM fits too, in num_em_iterations. The stage fails where EM's test
    figure and that of the closed form are further apart than em_tolerance_bits (per sub-pixel).
    """

    num_components: list[Annotated[int, Field(ge=1, lt=CIFAR10.num_subpixels)]] = Field(min_length=1)
    num_fit_images: int | None = Field(ge=1, le=MAX_IMAGES)
    num_test_images: int = Field(gt=1, le=NUM_TEST_IMAGES)
    em_components: list[int]
    num_em_iterations: int = Field(gt=0, le=MAX_STEPS)
    em_tolerance_bits: float = Field(gt=0, le=MAX_RATE)

    @field_validator("em_components")
    @classmethod
    def _is_on_the_ladder(cls, em_components: list[int], info: ValidationInfo) -> list[int]:
        num_components = info.data.get("num_components")  # absent if it was refused itself
        missing = [q for q in em_components if num_components is not None and q not in num_components]
        if missing:
            raise ValueError(f"must be among num_components, which has no {', '.join(map(str, missing))}")
        return em_components


class CommonConfig(Config):
    """common.<profile>."""

    run: RunConfig
    evaluation: CommonEvaluationConfig
    sampling: SamplingConfig
    ppca_ladder: PPCALadderConfig
    codecs: CodecsConfig
    conformance: ConformanceConfig


class ExactEvaluation(Config):
    """models.<model>.<profile>.evaluation of a model whose likelihood is exact: one pass over the images."""

    batch_size: int = Field(gt=0, le=MAX_IMAGES)


class DrawnEvaluation(ExactEvaluation):
    """The same of a density or a bound. num_draws: dequantization noises or latent draws, averaged in nats."""

    num_draws: int = Field(gt=0, le=MAX_DRAWS)


class EvaluationConfig(DrawnEvaluation):
    """The same of a latent-variable model, and what evaluation reads for any model.

    num_importance_samples: K of the importance-weighted bound; 0 for the bound alone.
    """

    num_importance_samples: int = Field(ge=0, le=MAX_DRAWS)


class DataConfig(Config):
    """data: an optional local copy of CIFAR-10 that is tried before any download."""

    local_path: str | None


class FitConfig(Config):
    """models.<model>.<profile>.training of a model that is fitted by EM. A closed form has no key, and 0 iterations."""

    num_iterations: int = Field(ge=0, le=MAX_STEPS)


class TrainingConfig(Config):
    """Training by gradient. Progress runs from 0 to 1 by steps or by seconds, whichever budget ends first.

    The learning rate rises linearly over `warmup_fraction` of the progress, stays, and falls to zero over the last
    `decay_fraction` (Haegele et al. 2024, arXiv 2405.18392). `max_seconds` counts training time over all
    sessions, without preparation and the first step of each session, which may compile.
    `muon_learning_rate`: of the matrices that Muon moves; with another optimizer there is none.
    `validation_batch_size`: validation noise is drawn batch by batch, so this is a number of the curve.
    `num_slices`: equal parts of each batch with noise and batch norm of their own, which as many processes may share
    (dgm/engine/sliced.py); 1 for the plain loop.
    `cuda_graph`: a GPU replays forward and backward pass as one graph (dgm/engine/graphed.py).
    """

    optimizer: Literal["adamw", "muon"]
    learning_rate: float = Field(gt=0, le=MAX_RATE)
    muon_learning_rate: float | None = Field(default=None, gt=0, le=MAX_RATE, validate_default=True)
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0, le=MAX_RATE)
    batch_size: int = Field(gt=0, le=MAX_IMAGES)
    num_slices: int = Field(default=1, gt=0, le=MAX_IMAGES)
    max_steps: int = Field(gt=0, le=MAX_STEPS)
    max_seconds: float | None = Field(gt=0, le=MAX_SECONDS)
    warmup_fraction: float = Field(ge=0, lt=1)
    decay_fraction: float = Field(ge=0, le=1)
    gradient_clip: float = Field(gt=0, le=MAX_NORM)
    ema_decay: float = Field(ge=0, lt=1)
    horizontal_flip: bool
    precision: Literal["float32", "bfloat16"]
    compile: bool
    channels_last: bool
    cuda_graph: bool = False
    validate_every: int = Field(gt=0, le=MAX_STEPS)
    num_validation_images: int = Field(gt=0, le=5000)
    validation_batch_size: int = Field(gt=0, le=5000)

    @field_validator("num_slices")
    @classmethod
    def _divides_the_batch(cls, num_slices: int, info: ValidationInfo) -> int:
        batch_size = info.data.get("batch_size")  # absent if it was refused itself
        if batch_size is not None and batch_size % num_slices:
            raise ValueError(f"must divide batch_size ({batch_size})")
        return num_slices

    @field_validator("cuda_graph")
    @classmethod
    def _is_the_plain_loop(cls, cuda_graph: bool, info: ValidationInfo) -> bool:
        if cuda_graph and info.data.get("num_slices", 1) > 1:
            raise ValueError("cannot capture slices; set it to false, or num_slices to 1")
        return cuda_graph

    @field_validator("muon_learning_rate")
    @classmethod
    def _belongs_to_muon(cls, rate: float | None, info: ValidationInfo) -> float | None:
        optimizer = info.data.get("optimizer")  # absent if it was refused itself
        if optimizer == "muon" and rate is None:
            raise ValueError("missing from params.yaml; optimizer muon needs it")
        if optimizer == "adamw" and rate is not None:
            raise ValueError("acts only with optimizer muon; remove it, or set optimizer to muon")
        return rate
