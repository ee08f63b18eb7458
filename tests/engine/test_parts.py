"""Schedule, optimizers, weight average and fitting loop, each against its definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dgm.config.sections import FitConfig, TrainingConfig
from dgm.engine.averaging import WeightAverage
from dgm.engine.fit import fit
from dgm.engine.loop import TrainingResult
from dgm.engine.optimizers import Muon, make_optimizers, orthogonalize, set_learning_rate
from dgm.engine.schedule import learning_rate_factor
from dgm.errors import StageError
from dgm.models.uniform import Uniform, UniformConfig
from dgm.runs.checkpoint import Scratch
from dgm.types import ImageSpec
from tests.tiny import UntrackedRun, random_images, tiny_training


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(tiny_training(**changes))


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    config = settings(warmup_fraction=0.1, decay_fraction=0.4)
    factors = [learning_rate_factor(config, progress) for progress in (0.0, 0.05, 0.1, 0.6, 0.8, 1.0)]
    assert 0 < factors[0] < factors[1] < factors[2] == factors[3] == 1.0
    assert factors[4] == pytest.approx(0.5)
    assert factors[5] == 0.0
    assert learning_rate_factor(settings(warmup_fraction=0.0, decay_fraction=0.0), 1.0) == 1.0


@pytest.mark.parametrize("shape", [(8, 8), (4, 30), (30, 4)])
def test_orthogonalized_updates_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonalize(torch.randn(3, *shape)))
    assert float(singular.min()) > 0.4
    assert float(singular.max()) < 1.3


def test_muon_takes_a_step_of_the_size_it_promises() -> None:
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.zeros(16, 4, 3, 3))
    kernel.grad = torch.randn(kernel.shape)
    Muon([kernel], lr=0.5, weight_decay=0.0).step()
    root_mean_square = float(kernel.detach().square().mean().sqrt())
    assert root_mean_square == pytest.approx(0.5 * 0.2, rel=0.2)
    assert float((kernel.detach() * kernel.grad).sum()) < 0


def test_matrices_of_one_shape_take_the_steps_that_each_would_take_alone() -> None:
    def steps(kernels: list[nn.Parameter], is_together: bool) -> list[Tensor]:
        groups = [kernels] if is_together else [[kernel] for kernel in kernels]
        optimizers = [Muon(group, lr=0.1, weight_decay=0.5) for group in groups]
        for seed in range(3):
            torch.manual_seed(seed)
            for index, kernel in enumerate(kernels):
                kernel.grad = torch.randn(kernel.shape) * 10**index
            for optimizer in optimizers:
                optimizer.step()
        return [kernel.detach() for kernel in kernels]

    shapes = [(6, 2, 3, 1), (6, 6), (6, 2, 1, 3), (6, 4)]
    torch.manual_seed(9)
    values = [torch.randn(shape).contiguous() for shape in shapes]
    values[0] = values[0].contiguous(memory_format=torch.channels_last)
    alone, together = (steps([nn.Parameter(value.clone()) for value in values], flag) for flag in (False, True))
    for one, other, value in zip(alone, together, values, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert float((one - value).abs().max()) > 0.01


def test_every_parameter_is_optimized_once_and_only_matrices_decay() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 8, 3)
            self.head = nn.Linear(8, 4)
            self.embedding_of_levels = nn.Embedding(4, 8)

    net = Net()
    adamw, muon = make_optimizers(net, settings(optimizer="muon", weight_decay=0.1))
    assert [p for group in muon.param_groups for p in group["params"]] == [net.body.weight]
    decaying, plain = adamw.param_groups
    assert {id(p) for p in decaying["params"]} == {id(net.head.weight), id(net.embedding_of_levels.weight)}
    assert {id(p) for p in plain["params"]} == {id(net.body.bias), id(net.head.bias)}
    assert (decaying["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    (only,) = make_optimizers(net, settings(optimizer="adamw"))
    assert sum(len(group["params"]) for group in only.param_groups) == 5
    set_learning_rate([adamw, muon], 0.25)
    assert {group["lr"] for group in (*adamw.param_groups, *muon.param_groups)} == {0.0025}


def test_the_average_follows_its_formula_and_leaves_the_live_weights_alone() -> None:
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(1.0)
    average = WeightAverage(net, decay=0.9)
    with torch.no_grad():
        net.weight.fill_(2.0)
    average.update(step=0)
    expected = 1.0 * 0.1 + 2.0 * 0.9
    assert float(average.average["weight"]) == pytest.approx(expected)
    average.update(step=10**6)
    expected = 0.9 * expected + 0.1 * 2.0
    with average.applied():
        assert float(net.weight.detach()) == pytest.approx(expected)
    assert float(net.weight.detach()) == 2.0


class Counting(Uniform):
    """Counts its iterations in a buffer; its likelihood is the random number of each."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__(spec, UniformConfig())
        self.total: Tensor
        self.register_buffer("total", torch.zeros(()))

    def iterate(self, images: Tensor, iteration: int, generator: torch.Generator) -> float:
        self.total += torch.rand((), generator=generator) + iteration
        return -float("inf") if self.total > 1000 else -1.0


def run_fit(folder: Path, num_iterations: int, stop: float | None = None, start: float = 0.0) -> TrainingResult:
    spec = ImageSpec(1, 2, 2, levels=4)
    model = Counting(spec)
    model.total.fill_(start)
    with Scratch("smoke", "counting", "key", folder) as scratch:
        config = FitConfig(num_iterations=num_iterations)
        return fit(model, random_images(spec, 5), config, 1, scratch, UntrackedRun(), 1e9, stop)  # type: ignore[arg-type]


def test_a_fit_that_is_paused_between_iterations_ends_the_same(tmp_path: Path) -> None:
    undisturbed = run_fit(tmp_path / "a", 4)
    paused = [run_fit(tmp_path / "b", 4, stop=0.0) for _ in range(3)]
    assert [result.num_steps for result in paused] == [1, 2, 3]
    resumed = run_fit(tmp_path / "b", 4)
    assert torch.equal(undisturbed.state["total"], resumed.state["total"])
    assert undisturbed.rows == resumed.rows


def test_a_likelihood_that_is_no_number_stops_the_fit(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="log-likelihood at iteration 0 is -inf; last good checkpoint: none yet"):
        run_fit(tmp_path, 4, start=2000.0)
