"""One short training as the train stage does it, timed: what benchmarks/training_speed.py asks of every model."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.untracked_run import UntrackedRun
from dgm.config.params import Params
from dgm.config.sections import TrainingConfig
from dgm.data.arrays import CifarArrays, DataError, load_arrays
from dgm.data.splits import make_splits
from dgm.engine.flops import count_flops
from dgm.engine.graphed import GraphedTrainer
from dgm.engine.loop import Trainer
from dgm.engine.session import Session
from dgm.model_api.contracts import GradientTrained
from dgm.runs.checkpoint import Scratch
from dgm.runs.provenance import peak_memory_bytes
from dgm.seeds import Stream, seed_global
from dgm.settings import build_model, training_config
from dgm.types import CIFAR10, NUM_TEST_IMAGES, NUM_TRAIN_IMAGES
from stages.cli import DATA
from stages.device import prepare_device
from stages.train import MAX_COUNTED_IMAGES

WARM_SHARE = 1 / 3  # of the seconds, not counted in the rate
NEVER = 10**9


@dataclass(frozen=True)
class Settings:
    """What the command line asks for; None: what the profile says."""

    profile: str
    seconds: float
    device: str | None
    batch_size: int | None
    is_compiled: bool | None
    is_graphed: bool | None = None


@dataclass(frozen=True)
class Speed:
    """One model's row. Bits are per sub-pixel, of the same validation images before any step and at the end.

    is_warm: a step began after WARM_SHARE of the seconds; else the rate is that of the only step after the first.
    """

    model: str
    images_per_second: float
    num_steps: int
    batch_size: int
    precision: str
    is_compiled: bool
    is_graphed: bool
    first_step_seconds: float
    peak_memory_bytes: int
    training_flops_per_image: int
    start_bits: float
    end_bits: float
    is_warm: bool

    @property
    def flops(self) -> float:
        """Floating-point operations per second."""
        return self.images_per_second * self.training_flops_per_image


class TimedTrainer(Trainer):
    """Marks the time of steps, the device's work done. The seconds begin after the first step, which may compile."""

    warm_seconds = 0.0
    first_step_seconds = 0.0
    is_warm = False
    mark = end = (0.0, 0)  # monotonic seconds, steps

    def _mark(self) -> tuple[float, int]:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic(), self.step

    def _record_start(self) -> None:
        super()._record_start()
        self.session.restart_clock()  # preparing and validating may have taken more than all the seconds

    def _train_step(self, progress: float) -> None:
        began = self._mark() if self.step == 0 else None
        if began is None and not self.is_warm and self.session.seconds > self.warm_seconds:
            self.mark, self.is_warm = self._mark(), True
        super()._train_step(progress)
        if began is not None:
            self.mark = self._mark()
            self.session.restart_clock()
            self.first_step_seconds = self.mark[0] - began[0]

    def _record(self) -> None:
        self.end = self._mark()
        super()._record()

    def steps_per_second(self) -> float:
        return (self.end[1] - self.mark[1]) / (self.end[0] - self.mark[0])


class TimedGraphedTrainer(TimedTrainer, GraphedTrainer):
    """The same of steps that a GPU replays; the first one captures."""


def shortened(config: TrainingConfig, settings: Settings) -> TrainingConfig:
    """The profile's training within the seconds, validated only before and after, on one batch of images."""
    batch_size = settings.batch_size or config.batch_size
    changes: dict[str, Any] = {
        "batch_size": batch_size,
        "max_seconds": settings.seconds,
        "max_steps": NEVER,
        "validate_every": NEVER,
        "num_validation_images": min(config.num_validation_images, batch_size),
    }
    if settings.is_compiled is not None:
        changes["compile"] = settings.is_compiled
    if settings.is_graphed is not None:
        changes["cuda_graph"] = settings.is_graphed
    return config.model_copy(update=changes)


def training_arrays(folder: Path) -> tuple[CifarArrays, str]:
    """CIFAR-10, or images from a seed where it was not downloaded, and which of them."""
    try:
        return load_arrays(folder), "CIFAR-10's training images"
    except DataError:
        draw = np.random.default_rng(0).integers
        sizes = (NUM_TRAIN_IMAGES, *CIFAR10.shape), (NUM_TEST_IMAGES, *CIFAR10.shape)
        train, test = (draw(CIFAR10.levels, size=size, dtype=np.uint8) for size in sizes)
        return CifarArrays(train, test), "random images of CIFAR-10's size (no data/train.npy here)"


def measure(name: str, settings: Settings, params: Params, folder: Path = DATA) -> Speed:
    """A short training of one model, in this process."""
    common = params.common_config(settings.profile).run
    training = training_config(params, name, settings.profile)
    device = prepare_device(common, settings.device)
    splits = make_splits(training_arrays(folder)[0], common.num_training_images)
    images = torch.from_numpy(splits.train.copy()).to(device)
    held_out = torch.from_numpy(splits.validation.copy()).to(device)
    seed_global(common.seed, Stream.CONSTRUCTION)
    model = build_model(params, name, settings.profile, CIFAR10).to(device)
    if not isinstance(model, GradientTrained) or not isinstance(training, TrainingConfig):
        raise TypeError(f"{name} is not trained by gradient")
    config = shortened(training, settings)
    with (
        tempfile.TemporaryDirectory() as scratch_folder,
        Scratch(settings.profile, name, "speed", Path(scratch_folder)) as scratch,
    ):
        session = Session(scratch, UntrackedRun(), None, checkpoint_seconds=float(NEVER))
        kind = TimedGraphedTrainer if config.cuda_graph else TimedTrainer
        trainer = kind(model, images, held_out, config, common.seed, session)
        trainer.warm_seconds = settings.seconds * WARM_SHARE
        result = trainer.run()
        memory = peak_memory_bytes(str(device))
        trainer.save()
    flops = count_flops(model, images[: min(config.batch_size, MAX_COUNTED_IMAGES)], common.seed)
    return Speed(
        model=name,
        images_per_second=trainer.steps_per_second() * config.batch_size,
        num_steps=result.num_steps,
        batch_size=config.batch_size,
        precision=config.precision,
        is_compiled=config.compile and bool(model.hot_method),
        is_graphed=config.cuda_graph,
        first_step_seconds=trainer.first_step_seconds,
        peak_memory_bytes=memory,
        training_flops_per_image=flops[1],
        start_bits=float(result.curve[0].validation_bits_per_subpixel or "nan"),
        end_bits=float(result.curve[-1].validation_bits_per_subpixel or "nan"),
        is_warm=trainer.is_warm,
    )
