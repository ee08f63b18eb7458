"""The training loop of every gradient-trained model.

The state after step s is a function of (code, configuration, data, seed, s): batches, noise and dropout derive from
(seed, step), so a run that is killed and resumed ends bit-identical on a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dgm.config.sections import TrainingConfig
from dgm.data.batches import batch_indices
from dgm.engine.averaging import WeightAverage
from dgm.engine.optimizers import make_optimizers, set_learning_rate
from dgm.engine.schedule import learning_rate_factor
from dgm.errors import StageError
from dgm.model_api.contracts import GradientTrained, Model
from dgm.model_api.scoring import score_images
from dgm.runs.checkpoint import Scratch
from dgm.runs.progress import Progress
from dgm.seeds import Stream, generator_for, seed_global
from dgm.tracking.tracked_run import TrackedRun
from dgm.types import Images
from dgm.units import nats_to_bits_per_subpixel

CHECK_EVERY_ON_CUDA = 25  # reading the loss waits for the device, so it is not done at every step there


@dataclass(frozen=True)
class TrainingResult:
    """state: what is saved (averaged parameters and buffers); rows: the curve, columns dgm.runs.CURVE_COLUMNS."""

    state: Mapping[str, Tensor]
    rows: list[list[float | None]]
    seconds: float
    images_seen: int
    num_steps: int
    is_finished: bool


def check_finite(value: float, what: str, scratch: Scratch) -> None:
    """Raises: StageError naming the last good checkpoint if value is NaN or infinite."""
    if not math.isfinite(value):
        kept = scratch.path
        raise StageError(
            f"{what} is {value}; last good checkpoint: {kept if kept else 'none yet'}. Lower the learning rate or the "
            "gradient clip in params.yaml and run again"
        )


class Trainer:
    """One training: `run` goes on from the scratch checkpoint if there is one, else from the beginning."""

    def __init__(
        self,
        model: Model,
        train_images: Images,
        validation_images: Images,
        config: TrainingConfig,
        seed: int,
        scratch: Scratch,
        run: TrackedRun,
        checkpoint_seconds: float,
    ) -> None:
        assert isinstance(model, GradientTrained)
        self.model, self.config, self.seed = model, config, seed
        self.train_images = train_images
        self.validation_images = validation_images[: config.num_validation_images]
        self.scratch, self.tracked = scratch, run
        self.checkpoint_seconds = checkpoint_seconds
        self.device = train_images.device
        self.step = 0
        self.seconds_before = 0.0
        self.began = time.monotonic()
        self.rows: list[list[float | None]] = []
        self.interval_nats = torch.zeros((), dtype=torch.float64, device=self.device)
        self.interval_images = 0
        self.latest_train_bits = float("nan")
        self._start()

    def _start(self) -> None:
        saved = self.scratch.load()
        if saved is None:
            self.model.prepare(self.train_images, generator_for(self.seed, Stream.PREPARATION, device=self.device))
        else:
            self.model.load_state_dict(saved["model"])
        if self.config.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = make_optimizers(self.model, self.config)
        self.average = WeightAverage(self.model, self.config.ema_decay)
        if saved is not None:
            self._restore(saved)
        if self.config.compile:
            self.model.compile_hot_method()

    def _restore(self, saved: dict[str, Any]) -> None:
        self.average.average = {name: saved["average"][name].to(self.device) for name in self.average.average}
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.seconds_before, self.rows = saved["step"], saved["seconds"], saved["rows"]
        self.interval_nats = saved["interval_nats"].to(self.device)
        self.interval_images = saved["interval_images"]

    def save(self) -> None:
        """Writes all that the rest of the run depends on to the scratch checkpoint, after the points before it."""
        self.tracked.flush()
        self.scratch.save(
            {
                "model": self.model.state_dict(),
                "average": self.average.average,
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "step": self.step,
                "seconds": self.seconds,
                "rows": self.rows,
                "interval_nats": self.interval_nats,
                "interval_images": self.interval_images,
                "run": self.tracked.run_id,
            }
        )

    @property
    def seconds(self) -> float:
        """Seconds of training so far, over all sessions."""
        return self.seconds_before + time.monotonic() - self.began

    @property
    def progress(self) -> float:
        by_steps = self.step / self.config.max_steps
        by_time = self.seconds / self.config.max_seconds if self.config.max_seconds else 0.0
        return min(1.0, max(by_steps, by_time))

    def run(self, stop_after_seconds: float | None = None) -> TrainingResult:
        """Trains until a budget ends, or for `stop_after_seconds` of this session, but for one step at least."""
        self.model.train()
        first_step = self.step
        saved_at = time.monotonic()
        title = f"train {type(self.model).__name__}"
        with Progress(self.config.max_steps, title, self.config.max_seconds) as bar:
            if not self.rows:
                self._record_start()
            while (progress := self.progress) < 1.0:
                now = time.monotonic()
                if stop_after_seconds is not None and self.step > first_step and now - self.began > stop_after_seconds:
                    self._check_interval(progress)
                    self.save()
                    return self._result({}, is_finished=False)
                if now - saved_at > self.checkpoint_seconds and self.interval_images:
                    self._check_interval(progress)
                    self.save()
                    saved_at = time.monotonic()
                self._train_step(progress)
                self._show(bar, progress)
                if self.step % self.config.validate_every == 0:
                    self._record(progress)
            if self.interval_images:
                self._record(1.0)
            self._show(bar, 1.0)
        with self.average.applied():
            # a copy even on the CPU: leaving this block puts the live weights back into the same memory
            state = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.model.state_dict().items()}
        return self._result(state, is_finished=True)

    def _train_step(self, progress: float) -> None:
        config, step = self.config, self.step
        indices = torch.from_numpy(batch_indices(self.seed, step, len(self.train_images), config.batch_size))
        generator = generator_for(self.seed, Stream.STEP, step, device=self.device)
        seed_global(self.seed, Stream.GLOBAL, step)
        images = self.train_images[indices.to(self.device)]
        if config.horizontal_flip:
            is_flipped = torch.rand(len(images), generator=generator, device=self.device) < 0.5
            images = torch.where(is_flipped[:, None, None, None], images.flip(-1), images)
        factor = learning_rate_factor(config, progress)
        set_learning_rate(self.optimizers, factor)
        with self._precision():
            objective = self.model.objective(images, generator, progress)  # type: ignore[attr-defined]
        loss = nats_to_bits_per_subpixel(objective.loss.mean(), self.model.spec)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
        if self.device.type != "cuda" or step % CHECK_EVERY_ON_CUDA == 0:
            check_finite(float(loss.detach()), self._place(factor), self.scratch)
            mean_nats = objective.nats.detach().double().mean()
            self.latest_train_bits = -float(nats_to_bits_per_subpixel(mean_nats, self.model.spec))
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(step)
        self.interval_nats += objective.nats.detach().double().sum()
        self.interval_images += len(images)
        self.step += 1

    def _place(self, factor: float) -> str:
        return f"loss at step {self.step} (learning rate {self.config.learning_rate * factor:.3g})"

    def _check_interval(self, progress: float) -> None:
        """No checkpoint holds weights that a non-finite loss has reached."""
        check_finite(float(self.interval_nats), self._place(learning_rate_factor(self.config, progress)), self.scratch)

    def _precision(self) -> AbstractContextManager[Any]:
        if self.config.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _uncompiled(self) -> AbstractContextManager[Any]:
        """Validation runs the model's own code: compiling it for other shapes without gradient costs minutes."""
        return torch.compiler.set_stance("force_eager") if self.config.compile else nullcontext()

    def _show(self, bar: Progress, progress: float) -> None:
        rate = self.step * self.config.batch_size / max(self.seconds, 1e-9)
        learning_rate = self.config.learning_rate * learning_rate_factor(self.config, progress)
        bar.update(self.step, rate, self.latest_train_bits, self.rows[-1][4], learning_rate, self.seconds)

    def _record_start(self) -> None:
        """The first row of the curve: validation bits before any step."""
        validation_bits = self._validate()
        self.rows.append([0, 0, 0.0, None, validation_bits])
        self.tracked.log_metrics({"validation_bits_per_subpixel": validation_bits}, 0)

    def _record(self, progress: float) -> None:
        """One row of the curve: training bits since the last row, validation bits of the averaged weights."""
        self._check_interval(progress)
        spec, config = self.model.spec, self.config
        train_bits = -float(nats_to_bits_per_subpixel(self.interval_nats / self.interval_images, spec))
        validation_bits = self._validate()
        learning_rate = config.learning_rate * learning_rate_factor(config, progress)
        self.rows.append([self.step, self.step * config.batch_size, learning_rate, train_bits, validation_bits])
        self.interval_nats.zero_()
        self.interval_images = 0
        self.tracked.log_metrics(
            {
                "train_bits_per_subpixel": train_bits,
                "validation_bits_per_subpixel": validation_bits,
                "learning_rate": learning_rate,
            },
            self.step,
        )

    def _validate(self) -> float:
        self.model.eval()
        size = self.config.validation_batch_size
        with self.average.applied(), self._precision(), self._uncompiled():
            scored = score_images(
                self.model.log_likelihood,
                self.validation_images,
                range(0, len(self.validation_images), size),
                size,
                self.seed,
                Stream.VALIDATION,
                device=self.device,
            )
        self.model.train()
        return -float(nats_to_bits_per_subpixel(scored.nats.mean(), self.model.spec))

    def _result(self, state: Mapping[str, Tensor], is_finished: bool) -> TrainingResult:
        images_seen = self.step * self.config.batch_size
        return TrainingResult(state, self.rows, self.seconds, images_seen, self.step, is_finished)
