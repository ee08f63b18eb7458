"""A run that is paused, killed or resumed ends where an undisturbed one ends; a loss that is no number stops it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.config.sections import TrainingConfig
from dgm.engine.loop import Trainer, TrainingResult
from dgm.errors import StageError
from dgm.model_api.contracts import Model, Objective, TrainedAutoregressiveModel
from dgm.registry import MODELS, model_class
from dgm.runs.checkpoint import Scratch
from dgm.seeds import generator_for, seed_global
from dgm.types import ImageSpec
from dgm.units import nats_to_bits_per_subpixel
from tests.tiny import SMALL, UntrackedRun, random_images, tiny_training, untrained_model

SPEC = ImageSpec(1, 2, 2, levels=4)


class NoConfig(Config):
    """Nothing to set."""


class Histogram(TrainedAutoregressiveModel):
    """One learned histogram, behind dropout so that the global generator matters."""

    config_type = NoConfig

    def __init__(self, spec: ImageSpec, config: NoConfig) -> None:
        super().__init__(spec, config)
        self.logits = nn.Parameter(torch.zeros(spec.levels))
        self.dropout = nn.Dropout(0.3)

    def log_pmf(self, images: Tensor) -> Tensor:
        return self.dropout(self.logits).log_softmax(dim=-1).expand(*images.shape, -1)

    def log_prob(self, images: Tensor) -> Tensor:
        return self.log_pmf(images).gather(-1, images.long().unsqueeze(-1)).flatten(1).double().sum(dim=1)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    with Scratch("smoke", "histogram", "key", tmp_path) as scratch:
        yield scratch


def train(
    scratch: Scratch,
    model: Any = None,
    stop_after_seconds: float | None = None,
    tracked: UntrackedRun | None = None,
    checkpoint_seconds: float = 1e9,
    **changes: Any,
) -> TrainingResult:
    seed_global(1)
    model = model or Histogram(SPEC, NoConfig())
    spec = model.spec
    config = TrainingConfig.model_validate(tiny_training(**changes))
    run: Any = tracked or UntrackedRun()
    images, held_out = random_images(spec, 50), random_images(spec, 20, 1)
    trainer = Trainer(model, images, held_out, config, 1, scratch, run, checkpoint_seconds)
    return trainer.run(stop_after_seconds)


def assert_same(first: TrainingResult, second: TrainingResult) -> None:
    assert first.rows == second.rows
    assert first.state.keys() == second.state.keys()
    for name, tensor in first.state.items():
        assert torch.equal(tensor, second.state[name]), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_pausing_after_every_step_changes_nothing(scratch: Scratch, optimizer: str) -> None:
    undisturbed = train(scratch, optimizer=optimizer)
    assert scratch.load() is None
    results = [train(scratch, optimizer=optimizer, stop_after_seconds=0.0) for _ in range(3)]
    assert [(result.num_steps, result.is_finished) for result in results] == [(1, False), (2, False), (3, False)]
    assert_same(undisturbed, train(scratch, optimizer=optimizer))


def test_a_crash_between_checkpoints_changes_nothing(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = train(scratch)
    steps = iter(range(100))
    plain_update = Trainer._train_step

    def crash_at_seven(self: Trainer, progress: float) -> None:
        if next(steps) == 7:
            raise KeyboardInterrupt
        plain_update(self, progress)

    monkeypatch.setattr(Trainer, "_train_step", crash_at_seven)
    with pytest.raises(KeyboardInterrupt):
        train(scratch, checkpoint_seconds=0.0)
    monkeypatch.setattr(Trainer, "_train_step", plain_update)
    saved = scratch.load()
    assert saved is not None
    assert saved["step"] == 7
    assert_same(undisturbed, train(scratch))


def test_the_run_is_a_function_of_its_seed(scratch: Scratch) -> None:
    first = train(scratch)
    torch.rand(10)
    assert_same(first, train(scratch))


def test_every_image_counts_in_the_curve(scratch: Scratch) -> None:
    tracked = UntrackedRun()
    result = train(scratch, tracked=tracked, max_steps=10, validate_every=4)
    assert [row[0] for row in result.rows] == [0, 4, 8, 10]
    assert [row[1] for row in result.rows] == [0, 32, 64, 80]
    assert result.rows[0][3] is None
    assert result.rows[0][4] == pytest.approx(2.0, abs=1e-6)
    assert result.rows[1][3] == pytest.approx(2.0, abs=0.2)
    assert [step for step, _ in tracked.metrics] == [0, 4, 8, 10]
    assert result.images_seen == 80


def test_validation_scores_the_averaged_weights(scratch: Scratch) -> None:
    live = train(scratch, ema_decay=0.0, learning_rate=0.3)
    averaged = train(scratch, ema_decay=0.9999, learning_rate=0.3)
    assert live.rows[-1][3] == averaged.rows[-1][3]
    assert live.rows[-1][4] != averaged.rows[-1][4]


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_saved_weights_are_the_averaged_ones_that_validation_scored(scratch: Scratch, channels_last: bool) -> None:
    changes = {"ema_decay": 0.9999, "learning_rate": 0.1, "channels_last": channels_last, "decay_fraction": 0.0}
    model = untrained_model("pixelcnn", SMALL)
    result = train(scratch, model, **changes)
    fresh = untrained_model("pixelcnn", SMALL, seed=5)
    fresh.load_state_dict(dict(result.state))
    images = random_images(SMALL, 20, 1)

    def bits(scored: Model) -> float:
        with torch.no_grad():
            nats = scored.eval().log_likelihood(images, generator_for(0)).nats.mean()
        return -float(nats_to_bits_per_subpixel(nats, SMALL))

    assert bits(fresh) == pytest.approx(result.rows[-1][4], abs=1e-6)
    assert abs(bits(model) - bits(fresh)) > 1e-4


class Diverging(Histogram):
    """Becomes infinite at the eighth objective."""

    calls = 0

    def objective(self, images: Tensor, generator: torch.Generator, progress: float) -> Objective:
        self.calls += 1
        found = super().objective(images, generator, progress)
        return Objective(found.loss * (float("inf") if self.calls > 8 else 1.0), found.nats)


def test_a_loss_that_is_no_number_names_step_rate_and_checkpoint(scratch: Scratch) -> None:
    with pytest.raises(StageError, match=r"step 8 \(learning rate 0.0833\) is inf; last good checkpoint: .*key.pt"):
        train(scratch, Diverging(SPEC, NoConfig()), checkpoint_seconds=0.0, learning_rate=0.1)
    saved = scratch.load()
    assert saved is not None
    assert torch.isfinite(saved["model"]["logits"]).all()


def test_a_budget_in_seconds_ends_the_run_with_the_rate_at_zero(scratch: Scratch) -> None:
    result = train(scratch, max_steps=10**9, max_seconds=0.5, validate_every=10**9)
    assert result.is_finished
    assert 0.5 <= result.seconds < 5
    assert result.rows[-1][2] == 0.0


@pytest.mark.parametrize("name", [n for n in MODELS if hasattr(model_class(n), "objective")])
def test_every_trained_model_resumes_bit_identical(name: str, tmp_path: Path) -> None:
    def run(folder: Path, stop_after_seconds: float | None) -> TrainingResult:
        with Scratch("smoke", name, "key", folder) as scratch:
            model = untrained_model(name, SMALL)
            changes = {"max_steps": 4, "validate_every": 2, "learning_rate": 1e-3}
            return train(scratch, model, stop_after_seconds, **changes)

    undisturbed = run(tmp_path / "a", None)
    assert run(tmp_path / "b", 0.0).num_steps == 1
    assert_same(undisturbed, run(tmp_path / "b", None))
