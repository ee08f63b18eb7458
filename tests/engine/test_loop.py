"""A run that is paused, killed or resumed ends as an undisturbed one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dgm.config.parse import Config, parse
from dgm.config.sections import TrainingConfig
from dgm.engine.interrupt import StopRequest
from dgm.engine.loop import Trainer
from dgm.engine.result import TrainingResult
from dgm.engine.session import Session
from dgm.model_api.contracts import Model, TrainedAutoregressiveModel
from dgm.registry import MODELS, model_class
from dgm.runs.checkpoint import Scratch
from dgm.seeds import Stream, generator_for, seed_global
from dgm.types import ImageSpec
from dgm.units import nats_to_bits_per_subpixel
from tests.tiny import SMALL, TINY_MODELS, UntrackedRun, random_images, tiny_training, untrained_model

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
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as a terminal has it: a job in the background of a shell is started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
    images, held_out = random_images(spec, 50), random_images(spec, 20, 1)
    session = Session(scratch, tracked or UntrackedRun(), scratch.load(), checkpoint_seconds, stop_after_seconds)
    return Trainer(model, images, held_out, config, 1, session).run()


def assert_same(first: TrainingResult, second: TrainingResult) -> None:
    assert first.curve == second.curve
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
    assert [point.step for point in result.curve] == [0, 4, 8, 10]
    assert [point.images_seen for point in result.curve] == [0, 32, 64, 80]
    assert result.curve[0].train_bits_per_subpixel is None
    assert result.curve[0].validation_bits_per_subpixel == pytest.approx(2.0, abs=1e-6)
    assert result.curve[1].train_bits_per_subpixel == pytest.approx(2.0, abs=0.2)
    assert [step for step, _ in tracked.metrics] == [0, 4, 8, 10]
    assert result.images_seen == 80


def test_validation_scores_the_averaged_weights(scratch: Scratch) -> None:
    live = train(scratch, ema_decay=0.0, learning_rate=0.3)
    averaged = train(scratch, ema_decay=0.9999, learning_rate=0.3)
    assert live.curve[-1].train_bits_per_subpixel == averaged.curve[-1].train_bits_per_subpixel
    assert live.curve[-1].validation_bits_per_subpixel != averaged.curve[-1].validation_bits_per_subpixel


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

    assert bits(fresh) == pytest.approx(result.curve[-1].validation_bits_per_subpixel, abs=1e-6)
    assert abs(bits(model) - bits(fresh)) > 1e-4


def test_a_budget_in_seconds_ends_the_run_with_the_rate_at_zero(scratch: Scratch) -> None:
    result = train(scratch, max_steps=10**8, max_seconds=0.5, validate_every=10**8)
    assert result.is_finished
    assert 0.5 <= result.seconds < 5
    assert result.curve[-1].learning_rate == 0.0


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


def test_a_trainer_that_does_not_run_leaves_the_model_and_the_clock_alone(scratch: Scratch) -> None:
    model: Any = untrained_model("nice", SMALL)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = TrainingConfig.model_validate(tiny_training())
    images = random_images(SMALL, 50)
    Trainer(model, images, images, config, 1, Session(scratch, UntrackedRun(), None, 1e9))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_resume_reads_the_checkpoint_once_and_lets_go_of_it(scratch: Scratch) -> None:
    train(scratch, stop_after_seconds=0.0)
    session = Session(scratch, UntrackedRun(), scratch.load(), 1e9)
    saved = session.begin()
    assert saved is not None and saved["step"] == 1
    assert session.begin() is None and len(session.curve) == 1


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step_and_the_rest_is_bit_identical(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    undisturbed = train(scratch)
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    plain = Trainer._train_step

    def interrupted(self: Trainer, progress: float) -> None:
        if self.step == 3:
            os.kill(os.getpid(), number)
        plain(self, progress)

    monkeypatch.setattr(Trainer, "_train_step", interrupted)
    paused = train(scratch)
    assert (paused.is_finished, paused.num_steps, dict(paused.state)) == (False, 4, {})
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    monkeypatch.setattr(Trainer, "_train_step", plain)
    assert_same(undisturbed, train(scratch))


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_does_not_wait_for_the_step_and_an_ignored_signal_stays_ignored() -> None:
    with StopRequest() as stop:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert stop.is_set
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and background jobs of a shell have it
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def test_averaged_statistics_are_scored_saved_and_resumed(tmp_path: Path) -> None:
    """The saved model scores as validation did; its statistics are not those of the live network."""
    block = TINY_MODELS["real_nvp"] | {"norm": "batch_norm"}
    images = random_images(SMALL, 20, 1)

    def model() -> Any:
        torch.manual_seed(0)
        return model_class("real_nvp")(SMALL, parse(model_class("real_nvp").config_type, block, "real_nvp"))

    def run(folder: str, stop: float | None = None) -> tuple[TrainingResult, Any]:
        trained = model()
        with Scratch("smoke", "real_nvp", "key", tmp_path / folder) as scratch:
            changes = {"ema_decay": 0.99, "learning_rate": 0.02, "decay_fraction": 0.0, "validate_every": 3}
            return train(scratch, trained, stop, max_steps=6, **changes), trained

    result, live = run("a")
    fresh = model()
    fresh.load_state_dict(dict(result.state))
    with torch.no_grad():
        generator = generator_for(1, Stream.VALIDATION, 0)
        nats = fresh.eval().log_likelihood(images, generator).nats.mean()
    last = result.curve[-1].validation_bits_per_subpixel
    assert -float(nats_to_bits_per_subpixel(nats, SMALL)) == pytest.approx(last, abs=1e-6)
    for name in ("scales.0.0.mean", "scales.0.1.network.blocks.0.norm1.running_var"):
        assert not torch.equal(result.state[name], live.state_dict()[name]), name
    assert run("b", 0.0)[0].num_steps == 1
    assert_same(result, run("b")[0])
