"""Training whose steps are cut into slices, which any number of ranks share.

The batch of a step is the one that `Trainer` takes; slice i of it has noise, flips and dropout of its own, from (seed,
step, i), and batch norm sees one slice. So the weights are a function of the number of slices, and of the number of
ranks only by rounding. Gradients are averaged over the slices, and so are the statistics that batch norm keeps.

Not DistributedDataParallel: it wraps `forward`, where a model's entry is `objective`, copies the statistics of rank 0,
and averages over ranks, not slices. One sum of all gradients after the last slice is what its `no_sync` amounts to.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dgm.config.sections import TrainingConfig
from dgm.data.batches import batch_indices
from dgm.engine.averaging import running_statistics
from dgm.engine.loop import CHECK_EVERY_ON_CUDA, Trainer
from dgm.engine.optimizers import Muon, set_learning_rate
from dgm.engine.schedule import learning_rate_factor
from dgm.engine.session import Session
from dgm.engine.shared_muon import SharedMuon
from dgm.errors import StageError
from dgm.model_api.contracts import GradientTrained
from dgm.model_api.shared_scoring import Pass, SharedScore
from dgm.ranks import Ranks
from dgm.seeds import Stream, generator_for, seed_global
from dgm.types import Images
from dgm.units import nats_to_bits_per_subpixel


class JointSession(Session):
    """The session of one rank. Rank 0 tells how far the training is, and all pause where any is asked to."""

    is_pausing = False

    def agree(self, ranks: Ranks, progress: float, has_advanced: bool) -> float:
        """The progress of rank 0; before each step, on every rank."""
        wishes = [progress if ranks.is_first else 0.0, float(super().must_pause(has_advanced))]
        agreed = torch.tensor(wishes, dtype=torch.float64)
        ranks.add([agreed])
        self.is_pausing = bool(agreed[1] > 0)
        return float(agreed[0])

    def must_pause(self, has_advanced: bool) -> bool:
        return self.is_pausing


class SlicedTrainer(Trainer):
    """One rank of a training. Rank 0 alone writes checkpoints; all read them, from one disk."""

    session: JointSession

    def __init__(
        self,
        model: GradientTrained,
        train_images: Images,
        validation_images: Images,
        config: TrainingConfig,
        seed: int,
        session: JointSession,
        ranks: Ranks,
    ) -> None:
        super().__init__(model, train_images, validation_images, config, seed, session)
        self.ranks = ranks
        self.learning: list[nn.Parameter] = []  # those that have a gradient on any rank

    def _start(self) -> None:
        """Raises: StageError if the ranks do not begin at one step."""
        super()._start()
        steps = self.ranks.gather(self.step)
        if len(set(steps)) > 1:
            raise StageError(
                f"the ranks begin at the steps {', '.join(map(str, steps))}: .scratch must be on a disk that all share"
            )
        self.ranks.copy_first([*self.model.state_dict().values(), *self.average.average.values()])
        self.optimizers = [
            SharedMuon(optimizer, self.ranks) if isinstance(optimizer, Muon) else optimizer
            for optimizer in self.optimizers
        ]

    def save(self) -> None:
        """On rank 0 only."""
        if self.ranks.is_first:
            super().save()

    @property
    def progress(self) -> float:
        return self.session.agree(self.ranks, super().progress, self.step > self.first_step)

    def _train_step(self, progress: float) -> None:
        set_learning_rate(self.optimizers, learning_rate_factor(self.config, progress))
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss_and_nats = self._learn_slices(progress)
        if self.device.type != "cuda" or self.step % CHECK_EVERY_ON_CUDA == 0:
            loss, nats = loss_and_nats.tolist()
            self._check_loss(loss)
            mean_nats = nats / self.config.batch_size
            self.latest_train_bits = -float(nats_to_bits_per_subpixel(mean_nats, self.model.spec))
        self._clip_gradients()
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.step)
        self.interval_nats += loss_and_nats[1]
        self.interval_images += self.config.batch_size
        self.step += 1

    def _learn_slices(self, progress: float) -> Tensor:
        """Leaves the gradient of the whole batch. Its mean loss (bits per sub-pixel) and sum of nats, float64 (2,)."""
        num_slices = self.config.num_slices
        indices = batch_indices(self.seed, self.step, len(self.train_images), self.config.batch_size)
        loss_and_nats = torch.zeros(2, dtype=torch.float64, device=self.device)
        statistics = Statistics(self.model)
        parts: list[np.ndarray] = np.split(indices, num_slices)
        for number in range(self.ranks.rank, num_slices, self.ranks.count):
            generator = generator_for(self.seed, Stream.STEP, self.step, number, device=self.device)
            seed_global(self.seed, Stream.GLOBAL, self.step, number)
            images = self._images(parts[number], generator)
            statistics.rewind()
            with self._precision():
                objective = self.model.objective(images, generator, progress)
            loss = nats_to_bits_per_subpixel(objective.loss.mean(), self.model.spec) / num_slices
            loss.backward()
            loss_and_nats += torch.stack([loss.detach().double(), objective.nats.detach().double().sum()])
            statistics.collect()
        self.ranks.add([loss_and_nats, *self._gradients(), *statistics.sums])
        statistics.set_mean(num_slices)
        return loss_and_nats

    def _images(self, indices: np.ndarray, generator: torch.Generator) -> Images:
        """The images of a slice, some of them mirrored."""
        images = self.train_images[torch.from_numpy(indices).to(self.device, non_blocking=True)]
        if self.config.horizontal_flip:
            is_flipped = torch.rand(len(images), generator=generator, device=self.device) < 0.5
            images = torch.where(is_flipped[:, None, None, None], images.flip(-1), images)
        return images

    def _gradients(self) -> list[Tensor]:
        """Of the same parameters on every rank."""
        if not self.learning:
            names = {name for name, parameter in self.model.named_parameters() if parameter.grad is not None}
            anywhere = set[str]().union(*self.ranks.gather(names))
            self.learning = [each for name, each in self.model.named_parameters() if name in anywhere]
        for parameter in self.learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.learning if parameter.grad is not None]

    def _validate(self) -> float:
        """As in one process, each batch by one of the ranks."""
        if self.ranks.count == 1:
            return super()._validate()
        images, size = self.validation_images, self.config.validation_batch_size
        validation = Pass(images, size, self.seed, (Stream.VALIDATION,))
        shared = SharedScore(self.ranks, self.model.log_likelihood, [validation], self.device)
        vars(self.model)["log_likelihood"] = shared
        try:
            return super()._validate()
        finally:
            del vars(self.model)["log_likelihood"]


class Statistics:
    """The buffers that training moves: every slice begins from those before the step, and the mean is kept.

    Batch norm's counters count the step once.
    """

    def __init__(self, model: nn.Module) -> None:
        self.moving = list(running_statistics(model).values())
        self.counters = [each for name, each in model.named_buffers() if name.endswith("num_batches_tracked")]
        self.before = [buffer.clone() for buffer in (*self.moving, *self.counters)]
        self.sums = [torch.zeros_like(buffer) for buffer in self.moving]

    def rewind(self) -> None:
        for buffer, before in zip((*self.moving, *self.counters), self.before, strict=True):
            buffer.copy_(before)

    def collect(self) -> None:
        for total, buffer in zip(self.sums, self.moving, strict=True):
            total.add_(buffer)

    def set_mean(self, num_slices: int) -> None:
        for buffer, total in zip(self.moving, self.sums, strict=True):
            buffer.copy_(total / num_slices)
