"""A checkpoint made by hand is refused before any of it is used; one of this training is taken over by copying."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.config.sections import FitConfig, TrainingConfig
from dgm.engine.fit import fit
from dgm.engine.loop import Trainer
from dgm.engine.session import Session
from dgm.model_api.contracts import TrainedAutoregressiveModel
from dgm.models.uniform import Uniform
from dgm.runs.checkpoint import Scratch
from dgm.types import ImageSpec
from stages.train import UNFIT
from tests.tiny import UntrackedRun, random_images, tiny_training

SPEC = ImageSpec(1, 2, 2, levels=4)
STEP = 3  # of 4; the curve has its points at 0 and 2
State = dict[Any, Any]


class NoConfig(Config):
    """Nothing to set."""


class Pixels(TrainedAutoregressiveModel):
    """A matrix (a group of its own), two vectors and a buffer that is a whole number."""

    config_type = NoConfig
    calls: Tensor

    def __init__(self) -> None:
        super().__init__(SPEC, NoConfig())
        self.weight = nn.Parameter(torch.zeros(4, 4))
        self.first, self.second = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.ones(4))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def log_pmf(self, images: Tensor) -> Tensor:
        logits = self.weight @ self.first + self.first + self.second
        return logits.log_softmax(dim=-1).expand(*images.shape, -1)

    def log_prob(self, images: Tensor) -> Tensor:
        return self.log_pmf(images).gather(-1, images.long().unsqueeze(-1)).flatten(1).double().sum(dim=1)


class Counting(Uniform):
    """A fit whose iterations are counted in a buffer."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__(SPEC, NoConfig())  # type: ignore[arg-type]
        self.register_buffer("total", torch.zeros(()))

    def iterate(self, images: Tensor, iteration: int, generator: torch.Generator) -> float:
        self.total += 1
        return -1.0


def trainer(scratch: Scratch, saved: State | None, optimizer: str, pause: bool) -> Trainer:
    torch.manual_seed(0)
    config = TrainingConfig.model_validate(tiny_training(optimizer=optimizer, max_steps=4, validate_every=2))
    images, held_out = random_images(SPEC, 50), random_images(SPEC, 20, 1)
    return Trainer(
        Pixels(), images, held_out, config, 1, Session(scratch, UntrackedRun(), saved, 1e9, 0.0 if pause else None)
    )


@pytest.fixture
def scratch(tmp_path: Path) -> Any:
    with Scratch("smoke", "pixels", "key", tmp_path) as scratch:
        yield scratch


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, State]:
    """By optimizer, those after step 3."""
    found: dict[str, State] = {}
    for optimizer in ("adamw", "muon"):
        with Scratch("smoke", optimizer, "key", tmp_path_factory.mktemp(optimizer)) as scratch:
            for _ in range(STEP):
                trainer(scratch, scratch.load(), optimizer, pause=True).run()
            found[optimizer] = scratch.load() or {}
    return found


def adam(saved: State) -> State:
    """AdamW's state of its first parameter."""
    return saved["optimizers"][0]["state"][0]


def group(saved: State) -> State:
    return saved["optimizers"][0]["param_groups"][0]


CHANGES: dict[str, tuple[Callable[[State], Any], str]] = {
    "another shape that broadcasts": (lambda s: adam(s).update(exp_avg=torch.zeros(1)), r"exp_avg is \(1,\)"),
    "another dtype": (lambda s: adam(s).update(exp_avg=adam(s)["exp_avg"].double()), "exp_avg is .*float64"),
    "a moment that is not finite": (lambda s: adam(s)["exp_avg"].fill_(float("nan")), "exp_avg is not finite"),
    "a negative mean of squares": (lambda s: adam(s)["exp_avg_sq"].fill_(-1.0), "exp_avg_sq is negative"),
    "no moment": (lambda s: adam(s).pop("exp_avg_sq"), "missing or unknown: 'exp_avg_sq'"),
    "one moment more": (lambda s: adam(s).update(max_exp_avg_sq=torch.zeros(4)), "unknown: 'max_exp_avg_sq'"),
    "a number for a tensor": (lambda s: adam(s).update(exp_avg=0.0), "exp_avg is no plain tensor"),
    "a sparse tensor": (lambda s: adam(s).update(exp_avg=adam(s)["exp_avg"].to_sparse()), "no plain tensor"),
    "more steps than were made": (lambda s: adam(s)["step"].fill_(STEP + 1), "4 steps at step 3"),
    "no steps": (lambda s: adam(s)["step"].zero_(), "0 steps at step 3"),
    "half a step": (lambda s: adam(s)["step"].fill_(1.5), "1.5 steps at step 3"),
    "a parameter without state": (lambda s: s["optimizers"][0]["state"].pop(0), "of parameter 0"),
    "state of no parameter": (lambda s: s["optimizers"][0]["state"].update({9: adam(s)}), "of parameter 9"),
    "state that is a list": (lambda s: s["optimizers"][0].update(state=[adam(s)]), "keys"),
    "another peak of the learning rate": (lambda s: group(s).update(peak_lr=0.5), "settings of another training"),
    "another weight decay": (lambda s: group(s).update(weight_decay=0.5), "settings of another training"),
    "another decay of the mean": (lambda s: group(s).update(betas=(0.1, 0.2)), "settings of another training"),
    "a setting more": (lambda s: group(s).update(nesterov=True), "settings of another training"),
    "a group less": (lambda s: s["optimizers"][0]["param_groups"].pop(), "settings of another training"),
    "no groups": (lambda s: s["optimizers"][0].pop("param_groups"), "param_groups"),
    "a group of other parameters": (lambda s: group(s).update(params=[1]), "settings of another training"),
    "an optimizer less": (lambda s: s["optimizers"].pop(), "optimizers, not"),
    "an optimizer more": (lambda s: s["optimizers"].append({}), "optimizers, not"),
    "weights of another dtype": (lambda s: s["model"].update(first=torch.zeros(4).half()), "first is .*float16"),
    "weights of another shape": (lambda s: s["model"].update(first=torch.zeros(5)), r"first is \(5,\)"),
    "weights that are not finite": (lambda s: s["model"]["first"].fill_(float("inf")), "first is not finite"),
    "a buffer of another dtype": (lambda s: s["model"].update(calls=torch.zeros(())), "calls is .*float32"),
    "no weight": (lambda s: s["model"].pop("first"), "missing or unknown: 'first'"),
    "a weight more": (lambda s: s["model"].update({3: torch.zeros(4)}), "missing or unknown: 3"),
    "an average of another shape": (lambda s: s["average"].update(first=torch.zeros(1)), r"average: first is \(1,\)"),
    "an average of another dtype": (lambda s: s["average"].update(first=torch.zeros(4).double()), "float64"),
    "an average that is not finite": (lambda s: s["average"]["first"].fill_(float("nan")), "average: first is not fin"),
    "an average more": (lambda s: s["average"].update(third=torch.zeros(4)), "average: missing or unknown: 'third'"),
    "a sum of another dtype": (lambda s: s.update(interval_nats=torch.zeros(())), "interval_nats is .*float32"),
    "a sum that is not finite": (lambda s: s["interval_nats"].fill_(float("nan")), "interval_nats is not finite"),
    "sums instead of a sum": (lambda s: s.update(interval_nats=torch.zeros(2).double()), r"interval_nats is \(2,\)"),
    "another number of images": (lambda s: s.update(interval_images=7), "7 images since the last validation"),
    "a step beyond the end": (lambda s: s.update(step=4), "step 4 of 4"),
    "an earlier step": (lambda s: s.update(step=1), "its curve is not that of step 1"),
    "a curve without points": (lambda s: s.update(curve=[]), "its curve is not that of step 3"),
    "a point twice": (lambda s: s["curve"].append(s["curve"][-1]), "its curve is not that of step 3"),
    "a point of other images": (lambda s: s["curve"][1].update(images_seen=1), "its curve is not that of step 3"),
    "a point that is not finite": (lambda s: s["curve"][1].update(train_bits_per_subpixel=float("nan")), "train_bits"),
    "longer in starting than in training": (lambda s: s.update(startup_seconds=1e9), "startup_seconds are more"),
    "an entry more": (lambda s: s.update(schedule=1), "missing or unknown: 'schedule'"),
    "no average": (lambda s: s.pop("average"), "missing or unknown: 'average'"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_checkpoint_made_by_hand_is_refused_before_it_is_used(
    scratch: Scratch, checkpoints: dict[str, State], optimizer: str, change: str
) -> None:
    saved = copy.deepcopy(checkpoints[optimizer])
    alter, reason = CHANGES[change]
    alter(saved)
    again = trainer(scratch, saved, optimizer, pause=False)
    before = {name: tensor.clone() for name, tensor in again.model.state_dict().items()}
    with pytest.raises(UNFIT, match=reason):
        again.run()
    assert again.step == 0 and not again.session.is_restored
    assert all(torch.equal(before[name], tensor) for name, tensor in again.model.state_dict().items())


def test_a_momentum_of_another_shape_is_refused(scratch: Scratch, checkpoints: dict[str, State]) -> None:
    saved = copy.deepcopy(checkpoints["muon"])
    saved["optimizers"][1]["state"][0]["momentum"] = torch.zeros(4, 1)
    with pytest.raises(ValueError, match=r"Muon, parameter 0: momentum is \(4, 1\)"):
        trainer(scratch, saved, "muon", pause=False).run()


def test_tensors_that_share_their_memory_in_the_file_do_not_share_it_later(
    scratch: Scratch, checkpoints: dict[str, State]
) -> None:
    saved = copy.deepcopy(checkpoints["adamw"])
    adam(saved)["exp_avg_sq"] = adam(saved)["exp_avg"].square_()
    saved["average"]["first"] = torch.zeros(1).expand(4)  # one element of memory for four
    again = trainer(scratch, saved, "adamw", pause=False)
    assert again.run().is_finished
    (moments, *_), average = again.optimizers[0].state.values(), again.average.average["first"]
    assert moments["exp_avg"].data_ptr() != moments["exp_avg_sq"].data_ptr() and average.unique().numel() > 1


FIT_CHANGES: dict[str, tuple[Callable[[State], Any], str]] = {
    "an iteration beyond the end": (lambda s: s.update(iteration=4), "iteration 4 of 4"),
    "an iteration of a large number": (lambda s: s.update(iteration=10**18), "iteration 10+ of 4"),
    "an earlier iteration": (lambda s: s.update(iteration=1), "its curve is not that of iteration 1"),
    "other images": (lambda s: s.update(images_seen=7), "7 images seen at iteration 2"),
    "a point of other images": (lambda s: s["curve"][0].update(images_seen=1), "its curve is not that"),
    "weights of another dtype": (lambda s: s["model"].update(total=torch.zeros(()).double()), "total is .*float64"),
    "weights of another shape": (lambda s: s["model"].update(total=torch.zeros(1)), r"total is \(1,\)"),
    "weights that are not finite": (lambda s: s["model"]["total"].fill_(float("nan")), "total is not finite"),
    "an entry more": (lambda s: s.update(step=2), "missing or unknown: 'step'"),
}


@pytest.mark.parametrize("change", FIT_CHANGES)
def test_a_checkpoint_of_a_fit_made_by_hand_is_refused(scratch: Scratch, change: str) -> None:
    def run(saved: State | None, stop: float | None) -> Any:
        session = Session(scratch, UntrackedRun(), saved, 1e9, stop)
        return fit(Counting(), random_images(SPEC, 50), FitConfig(num_iterations=4), 1, session)

    for _ in range(2):
        run(scratch.load(), 0.0)
    saved = scratch.load()
    assert saved is not None and saved["iteration"] == 2
    alter, reason = FIT_CHANGES[change]
    alter(saved)
    with pytest.raises(UNFIT, match=reason):
        run(saved, None)
