"""Diagonal BiLSTM: published size, full receptive field, and a shift whose known mistakes are caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.model_api.ancestral import RecomputedConditionals
from dgm.models.diagonal_bilstm import DiagonalBiLSTM, DiagonalBiLSTMConfig, DiagonalBiLSTMLayer
from dgm.types import CIFAR10, ImageSpec
from tests.tiny import all_images, random_images

TINY = DiagonalBiLSTMConfig(num_hidden=4, num_layers=1, num_head_features=7)
TWO_BY_TWO = ImageSpec(channels=3, height=2, width=2, levels=2)
EIGHT_BY_EIGHT = ImageSpec(channels=3, height=8, width=8, levels=2)


def random_model(spec: ImageSpec, config: DiagonalBiLSTMConfig = TINY) -> DiagonalBiLSTM:
    torch.manual_seed(0)
    model = DiagonalBiLSTM(spec, config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def total_probability(model: DiagonalBiLSTM) -> float:
    with torch.no_grad():
        return float(model.log_prob(all_images(model.spec)).exp().sum())


def num_leaks(model: DiagonalBiLSTM) -> int:
    """Pairs (sub-pixel, conditional at or before it) where the conditional moves with the sub-pixel."""
    spec, order = model.spec, model.order()
    image = random_images(spec, 1)
    changed = image.flatten(1).repeat(spec.num_subpixels, 1)
    positions = torch.arange(spec.num_subpixels)
    changed[positions, order] = 1 - changed[positions, order]
    with torch.no_grad():
        reference = model.log_pmf(image).flatten(1, 3)[:, order]
        moved = model.log_pmf(changed.view(-1, *spec.shape)).flatten(1, 3)[:, order] - reference
    return int((moved.abs().amax(dim=-1).tril() > 1e-9).sum())


def test_published_size() -> None:
    model = DiagonalBiLSTM(CIFAR10, DiagonalBiLSTMConfig(num_hidden=128, num_layers=12, num_head_features=1024))
    assert model.num_parameters() == 8_837_888


@pytest.mark.parametrize(("row", "column", "allowed"), [(16, 0, 512), (16, 16, 528), (16, 31, 543), (31, 16, 1008)])
def test_one_layer_sees_every_pixel_before(row: int, column: int, allowed: int) -> None:
    config = DiagonalBiLSTMConfig(num_hidden=3, num_layers=1, num_head_features=3)
    model = DiagonalBiLSTM(ImageSpec(channels=3, height=32, width=32, levels=2), config).double()
    with torch.no_grad():
        for parameter in model.parameters():  # positive: no paths cancel and no ReLU dies
            parameter.copy_(0.1 * torch.rand_like(parameter) + 0.05)
    x = torch.zeros(1, *model.spec.shape, dtype=torch.float64, requires_grad=True)
    logits = model.readout.logits(model.layers[0](model.stem(x)))  # type: ignore[operator]
    (gradient,) = torch.autograd.grad(logits[0, row, column].sum(), x)
    seen = (gradient[0] != 0).any(dim=0).flatten()
    assert int(seen[: row * 32 + column].sum()) == allowed
    assert not seen[row * 32 + column + 1 :].any()


def test_probabilities_sum_to_one_and_nothing_leaks() -> None:
    assert total_probability(random_model(TWO_BY_TWO)) == pytest.approx(1.0, abs=1e-9)
    assert num_leaks(random_model(EIGHT_BY_EIGHT)) == 0


def shift_up(right: Tensor) -> Tensor:
    """The zero row at the wrong end: row i becomes row i - 1."""
    return F.pad(right, (0, 0, 0, 1))[:, :, 1:]


def no_shift(right: Tensor) -> Tensor:
    return right


@pytest.mark.parametrize("wrong", [shift_up, no_shift])
def test_wrong_shifts_are_caught_by_causality_and_by_the_sum(
    monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Tensor], Tensor]
) -> None:
    monkeypatch.setattr(DiagonalBiLSTMLayer, "shift_down", staticmethod(wrong))
    assert abs(total_probability(random_model(TWO_BY_TWO)) - 1) > 1e-4
    assert num_leaks(random_model(EIGHT_BY_EIGHT)) > 1000


@pytest.mark.parametrize("num_hidden", [4, 6])
def test_cached_conditionals_are_the_recomputed_ones(num_hidden: int) -> None:
    spec = ImageSpec(channels=3, height=4, width=5, levels=3)
    model = random_model(spec, DiagonalBiLSTMConfig(num_hidden=num_hidden, num_layers=2, num_head_features=7))
    images = random_images(spec, 2).flatten(1).long()
    cached, recomputed = model.conditionals(2), RecomputedConditionals(model, 2)
    for index in model.order().tolist():
        torch.testing.assert_close(cached.log_pmf(), recomputed.log_pmf(), rtol=0, atol=1e-12)
        cached.push(images[:, index])
        recomputed.push(images[:, index])
