"""A loss, gradient, weight or average that is not finite stops the training, and is in no checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dgm.config.sections import TrainingConfig
from dgm.engine.finite import NonFiniteError
from dgm.engine.loop import Trainer
from dgm.engine.session import Session
from dgm.errors import StageError
from dgm.model_api.contracts import Objective
from dgm.runs.checkpoint import Scratch
from tests.engine.test_loop import SPEC, Histogram, NoConfig, scratch, train
from tests.tiny import UntrackedRun, random_images, tiny_training

__all__ = ["scratch"]  # a fixture


class Diverging(Histogram):
    """Becomes infinite at the eighth objective."""

    calls = 0

    def objective(self, images: Tensor, generator: torch.Generator, progress: float) -> Objective:
        self.calls += 1
        found = super().objective(images, generator, progress)
        return Objective(found.loss * (float("inf") if self.calls > 8 else 1.0), found.nats)


def test_a_non_finite_loss_names_step_rate_and_checkpoint(scratch: Scratch) -> None:
    with pytest.raises(StageError, match=r"step 8 \(learning rate 0.0833\) is inf; last good checkpoint: .*key.pt"):
        train(scratch, Diverging(SPEC, NoConfig()), checkpoint_seconds=0.0, learning_rate=0.1)
    saved = scratch.load()
    assert saved is not None
    assert torch.isfinite(saved["model"]["logits"]).all()


class BrokenGradient(torch.autograd.Function):
    """Passes a tensor on; its gradient is multiplied by a number that is not finite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


class BadBackward(Histogram):
    """From the ninth objective on the gradient is not finite, the loss is."""

    calls, factor = 0, float("nan")

    def log_pmf(self, images: Tensor) -> Tensor:
        self.calls += self.training
        logits = self.dropout(self.logits)
        return (
            BrokenGradient.apply(logits, self.factor if self.calls > 8 else 1.0)
            .log_softmax(-1)
            .expand(*images.shape, -1)
        )


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e30])
def test_a_non_finite_gradient_of_a_finite_loss_reaches_no_weight_and_no_checkpoint(
    scratch: Scratch, factor: float
) -> None:
    model = BadBackward(SPEC, NoConfig())
    model.factor = factor
    what = "norm of the gradient" if factor == 1e30 else "gradient of logits"  # its squares overflow
    with pytest.raises(NonFiniteError, match=rf"{what} at step 8 .*checkpoint: .*key.pt\. Lower learning_rate"):
        train(scratch, model, checkpoint_seconds=0.0)
    assert torch.isfinite(model.logits).all()
    saved = scratch.load()
    assert saved is not None and saved["step"] == 8
    assert torch.isfinite(saved["model"]["logits"]).all() and torch.isfinite(saved["average"]["logits"]).all()


def test_a_gradient_that_was_only_noted_stops_before_the_next_checkpoint(scratch: Scratch) -> None:
    """As on a GPU, where no step waits for its gradient."""

    class Noting(Trainer):
        def _clip_gradients(self) -> None:
            if self.step == 8:
                self.bad_step.clamp_(max=self.step)
                self.model.logits.data.fill_(float("nan"))  # type: ignore[union-attr, operator]

        def _check_loss(self, loss: float) -> None:
            """Not at these steps."""

    config = TrainingConfig.model_validate(tiny_training(validate_every=100))
    session = Session(scratch, UntrackedRun(), None, 0.0)
    images = random_images(SPEC, 50)
    with pytest.raises(NonFiniteError, match=r"gradient at step 8 .* not finite, and so is logits; last good .*key.pt"):
        Noting(Histogram(SPEC, NoConfig()), images, images, config, 1, session).run()
    saved = scratch.load()
    assert saved is not None and saved["step"] == 8


@pytest.mark.parametrize("where", ["model", "average", "buffer"])
def test_no_checkpoint_holds_a_weight_average_or_buffer_that_is_not_finite(scratch: Scratch, where: str) -> None:
    class Overflowing(Trainer):
        def _train_step(self, progress: float) -> None:
            super()._train_step(progress)
            if self.step == 7:
                model: Any = self.model
                tensors = {"model": model.logits.data, "average": self.average.average["logits"], "buffer": model.seen}
                tensors[where][0] = float("inf")

    model = Histogram(SPEC, NoConfig())
    model.register_buffer("seen", torch.zeros(2))
    config = TrainingConfig.model_validate(tiny_training(validate_every=100))
    session = Session(scratch, UntrackedRun(), None, 0.0)
    name = {"model": "logits", "average": "average of logits", "buffer": "seen"}[where]
    with pytest.raises(NonFiniteError, match=f"^{name} is not finite before step 7; last good checkpoint: .*key.pt"):
        Overflowing(model, random_images(SPEC, 50), random_images(SPEC, 20), config, 1, session).run()
    saved = scratch.load()
    assert saved is not None and saved["step"] == 6
