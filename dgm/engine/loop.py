"""The training loop of every gradient-trained model.

The state after step s is a function of (code, configuration, data, seed, s): batches, noise and dropout derive from
(seed, step), so a run that is killed and resumed ends bit-identical on a CPU.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from dgm.config.sections import TrainingConfig
from dgm.data.batches import batch_indices
from dgm.engine.averaging import WeightAverage
from dgm.engine.finite import NonFiniteError, first_non_finite
from dgm.engine.optimizers import current_learning_rate, make_optimizers, set_learning_rate
from dgm.engine.restore import check_optimizers, check_progress, check_tensors, restore_optimizers
from dgm.engine.result import TrainingResult
from dgm.engine.schedule import learning_rate_factor
from dgm.engine.session import Session
from dgm.model_api.contracts import GradientTrained
from dgm.model_api.scoring import score_images
from dgm.runs.progress import Progress
from dgm.runs.records import CurvePoint
from dgm.seeds import Stream, generator_for, seed_global
from dgm.types import Images
from dgm.units import nats_to_bits_per_subpixel

CHECK_EVERY_ON_CUDA = 25  # reading a number waits for the device, so it is not done at every step there
NO_STEP = 2**62
SAVED = ("step", "average", "optimizers", "startup_seconds", "interval_nats", "interval_images")  # beside the session's
REMEDY = "Lower learning_rate or gradient_clip in params.yaml"


class Trainer:
    """One training: `run` continues from the session's checkpoint if it has one, else begins.

    The Trainer itself changes nothing before `run`. Shapes: images uint8 (N, C, H, W), on the device of the model.
    """

    optimizers: list[torch.optim.Optimizer]
    average: WeightAverage

    def __init__(
        self,
        model: GradientTrained,
        train_images: Images,
        validation_images: Images,
        config: TrainingConfig,
        seed: int,
        session: Session,
    ) -> None:
        self.model, self.config, self.seed, self.session = model, config, seed, session
        self.train_images = train_images
        self.validation_images = validation_images[: config.num_validation_images]
        self.device = train_images.device
        self.step = self.first_step = 0
        self.startup_seconds = 0.0  # of all sessions: preparation, and the first step of each, which may compile
        self.interval_nats = torch.zeros((), dtype=torch.float64, device=self.device)
        self.interval_images = 0
        self.latest_train_bits = float("nan")
        self.bad_step = torch.full((), NO_STEP, device=self.device)  # the first with a non-finite gradient, on CUDA

    def _start(self) -> None:
        """Prepares the model, or restores it."""
        saved = self.session.begin()
        self.seconds_at_start = self.session.seconds
        if saved is None:
            self.model.prepare(self.train_images, generator_for(self.seed, Stream.PREPARATION, device=self.device))
        if self.config.channels_last:
            self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportUnknownMemberType]
        self.optimizers = make_optimizers(self.model, self.config)
        self.average = WeightAverage(self.model, self.config.ema_decay)
        if saved is not None:
            self._restore(saved)
        if self.config.compile:
            self.model.compile_hot_method()

    def _restore(self, saved: dict[str, Any]) -> None:
        """Raises: ValueError, or another error of Python's, before any change if this training did not save it."""
        step, every, size = saved["step"], self.config.validate_every, self.config.batch_size
        points = ((at, at * size) for at in range(0, step + 1, every))
        check_progress(saved, SAVED, self.config.max_steps, points, self.session.curve)
        if saved["interval_images"] != step % every * size:
            raise ValueError(f"{saved['interval_images']} images since the last validation at step {step}")
        if saved["startup_seconds"] > saved["seconds"]:
            raise ValueError("startup_seconds are more than seconds")
        check_tensors(saved["model"], self.model.state_dict(), "model")
        check_tensors(saved["average"], self.average.average, "average")
        check_tensors({"interval_nats": saved["interval_nats"]}, {"interval_nats": self.interval_nats}, "state")
        check_optimizers(self.optimizers, saved["optimizers"], step)
        self.model.load_state_dict(saved["model"])
        for name, tensor in self.average.average.items():
            tensor.copy_(saved["average"][name])
        restore_optimizers(self.optimizers, saved["optimizers"])
        self.step = self.first_step = step
        self.startup_seconds = saved["startup_seconds"]
        self.interval_nats.copy_(saved["interval_nats"])
        self.interval_images = saved["interval_images"]

    def save(self) -> None:
        """Writes all that the rest of the run depends on. Raises: NonFiniteError before anything is written."""
        self._check_finite()
        self.session.save(
            {
                "model": self.model.state_dict(),
                "average": self.average.average,
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "step": self.step,
                "startup_seconds": self.startup_seconds,
                "interval_nats": self.interval_nats,
                "interval_images": self.interval_images,
            }
        )

    @property
    def images_seen(self) -> int:
        return self.step * self.config.batch_size

    @property
    def budget_seconds(self) -> float:
        """Seconds that count towards max_seconds: without preparing and compiling, or no warm-up would be left."""
        is_starting = self.step == self.first_step
        return (self.seconds_at_start if is_starting else self.session.seconds) - self.startup_seconds

    @property
    def progress(self) -> float:
        by_steps = self.step / self.config.max_steps
        by_time = self.budget_seconds / self.config.max_seconds if self.config.max_seconds else 0.0
        return min(1.0, max(by_steps, by_time))

    def run(self) -> TrainingResult:
        """Trains until a budget ends or the session pauses.

        Raises: NonFiniteError naming the step and the tensor if a loss, a gradient or a weight is not finite.
        """
        self._start()
        self.model.train()
        title = f"train {type(self.model).__name__}"
        with Progress(self.config.max_steps, title, self.config.max_seconds) as bar, self.session.stop:
            if not self.session.curve:
                self._record_start()
            while (progress := self.progress) < 1.0:
                if self.session.must_pause(has_advanced=self.step > self.first_step):
                    self.save()
                    return self._result({}, is_finished=False)
                if self.session.is_checkpoint_due and self.interval_images:
                    self.save()
                self._train_step(progress)
                if self.step == self.first_step + 1:
                    self.startup_seconds += self.session.seconds - self.seconds_at_start
                self._show(bar)
                if self.step % self.config.validate_every == 0:
                    self._record()
            set_learning_rate(self.optimizers, learning_rate_factor(self.config, 1.0))
            if self.interval_images:
                self._record()
            self._show(bar)
        with self.average.applied():
            # a copy even on the CPU: leaving this block puts the live weights back into the same memory
            state = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.model.state_dict().items()}
        return self._result(state, is_finished=True)

    def _train_step(self, progress: float) -> None:
        generator = generator_for(self.seed, Stream.STEP, self.step, device=self.device)
        seed_global(self.seed, Stream.GLOBAL, self.step)
        images = self._batch(generator)
        set_learning_rate(self.optimizers, learning_rate_factor(self.config, progress))
        with self._precision():
            objective = self.model.objective(images, generator, progress)
        loss = nats_to_bits_per_subpixel(objective.loss.mean(), self.model.spec)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.device.type != "cuda" or self.step % CHECK_EVERY_ON_CUDA == 0:
            self._check_loss(float(loss.detach()))
            mean_nats = objective.nats.detach().double().mean()
            self.latest_train_bits = -float(nats_to_bits_per_subpixel(mean_nats, self.model.spec))
        self._clip_gradients()
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.step)
        self.interval_nats += objective.nats.detach().double().sum()
        self.interval_images += len(images)
        self.step += 1

    def _batch(self, generator: torch.Generator) -> Images:
        """The images of this step, some of them mirrored."""
        indices = batch_indices(self.seed, self.step, len(self.train_images), self.config.batch_size)
        images = self.train_images[torch.from_numpy(indices).to(self.device, non_blocking=True)]
        if self.config.horizontal_flip:
            is_flipped = torch.rand(len(images), generator=generator, device=self.device) < 0.5
            images = torch.where(is_flipped[:, None, None, None], images.flip(-1), images)
        return images

    def _clip_gradients(self) -> None:
        """Scales the gradients so that their norm is at most gradient_clip.

        A gradient that is not finite stops the training before the step on a CPU. On a GPU reading it would wait for
        the device at every step: the step is noted there, and `_check_finite` reads it before anything is saved.
        """
        gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        norm = get_total_norm(gradients.values())
        if self.device.type == "cuda":
            self.bad_step = torch.where(norm.isfinite(), self.bad_step, self.bad_step.clamp(max=self.step))
        elif not math.isfinite(norm):
            name = first_non_finite(gradients)
            what = f"gradient of {name}" if name else "norm of the gradient"
            raise self._error(f"{what} {self._place(self.step)} is not finite")
        clip_grads_with_norm_(self.model.parameters(), self.config.gradient_clip, norm)

    def _check_loss(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise self._error(f"loss {self._place(self.step)} is {loss}")
        self._check_bad_step()

    def _check_bad_step(self) -> None:
        if (step := int(self.bad_step)) != NO_STEP:
            name = first_non_finite(self.model.state_dict())
            raise self._error(f"gradient {self._place(step)} is not finite" + (f", and so is {name}" if name else ""))

    def _check_finite(self) -> None:
        """No checkpoint holds, and no validation scores, what something non-finite has reached.

        Raises: NonFiniteError naming it.
        """
        self._check_bad_step()
        if not math.isfinite(nats := float(self.interval_nats)):
            raise self._error(f"log-likelihood of the training images before step {self.step} is {nats}")
        averages = {f"average of {name}": tensor for name, tensor in self.average.average.items()}
        if name := first_non_finite({**self.model.state_dict(), **averages}):
            raise self._error(f"{name} is not finite before step {self.step}")

    def _place(self, step: int) -> str:
        return f"at step {step} (learning rate {current_learning_rate(self.optimizers):.3g})"

    def _error(self, what: str) -> NonFiniteError:
        return NonFiniteError(what, self.session.checkpoint, REMEDY)

    def _precision(self) -> AbstractContextManager[Any]:
        if self.config.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _uncompiled(self) -> AbstractContextManager[Any]:
        """Validation runs the model's own code: compiling it for other shapes without gradient costs minutes."""
        return torch.compiler.set_stance("force_eager") if self.config.compile else nullcontext()

    def _show(self, bar: Progress) -> None:
        rate = current_learning_rate(self.optimizers)
        self.session.show(bar, self.step, self.images_seen, self.latest_train_bits, rate)

    def _record_start(self) -> None:
        """The first point of the curve: validation bits before any step."""
        self.session.record(CurvePoint(0, 0, 0.0, None, self._validate()))

    def _record(self) -> None:
        """A point of the curve: training bits since the point before, validation bits of the averaged weights."""
        self._check_finite()
        mean_nats = self.interval_nats / self.interval_images
        train_bits = -float(nats_to_bits_per_subpixel(mean_nats, self.model.spec))
        rate, validation_bits = current_learning_rate(self.optimizers), self._validate()
        self.session.record(CurvePoint(self.step, self.images_seen, rate, train_bits, validation_bits))
        self.interval_nats.zero_()
        self.interval_images = 0

    def _validate(self) -> float:
        """Bits per sub-pixel of the validation images under the averaged weights."""
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

    def _result(self, state: dict[str, Tensor], is_finished: bool) -> TrainingResult:
        session = self.session
        return TrainingResult(state, session.curve, session.seconds, self.images_seen, self.step, is_finished)
