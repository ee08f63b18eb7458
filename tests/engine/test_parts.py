"""Schedule, optimizers and weight average, each against its definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dgm.config.sections import TrainingConfig
from dgm.engine.averaging import WeightAverage, running_statistics
from dgm.engine.optimizers import Muon, current_learning_rate, make_optimizers, orthogonalize, set_learning_rate
from dgm.engine.schedule import learning_rate_factor
from tests.tiny import tiny_training


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
    assert current_learning_rate([adamw, muon]) == 0.0025
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


class OwnNorm(nn.Module):
    """A batch norm of our own kind, with a buffer that does not move."""

    running_statistics = ("scale",)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("table", torch.ones(2))


def test_running_statistics_are_averaged_and_nothing_else_that_is_a_buffer() -> None:
    net = nn.Sequential(nn.BatchNorm2d(2, affine=False), OwnNorm(), nn.BatchNorm1d(2, track_running_stats=False))
    statistics = running_statistics(net)
    assert statistics.keys() == {"0.running_mean", "0.running_var", "1.scale"}
    average = WeightAverage(net, decay=0.9)
    for buffer in statistics.values():
        buffer.fill_(2.0)
    average.update(step=10**6)
    with average.applied():
        means = {name: float(buffer.double().mean()) for name, buffer in net.named_buffers()}
        assert means["0.running_mean"] == pytest.approx(0.2)
        assert means["0.running_var"] == means["1.scale"] == pytest.approx(1.1)
    assert all(float(buffer.mean()) == 2.0 for buffer in statistics.values())
