"""Diagonal BiLSTM: published size, full receptive field, and a shift whose known mistakes are caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.models.diagonal_bilstm import DiagonalBiLSTM, DiagonalBiLSTMConfig, DiagonalBiLSTMLayer
from dgm.types import CIFAR10, ImageSpec
from tests import test_model_contract as contract
from tests.tiny import PLAIN


def test_published_size() -> None:
    model = DiagonalBiLSTM(
        CIFAR10, DiagonalBiLSTMConfig(num_hidden=128, num_layers=12, num_head_features=1024, **PLAIN)
    )
    assert model.num_parameters() == 8_837_888


@pytest.mark.parametrize(("row", "column", "allowed"), [(16, 0, 512), (16, 16, 528), (16, 31, 543), (31, 16, 1008)])
def test_one_layer_sees_every_pixel_before(row: int, column: int, allowed: int) -> None:
    config = DiagonalBiLSTMConfig(num_hidden=3, num_layers=1, num_head_features=3, **PLAIN)
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
    with pytest.raises(AssertionError, match="sees sub-pixel"):
        contract.test_a_subpixel_moves_no_conditional_before_or_at_it("diagonal_bilstm-oblong")
    with pytest.raises(AssertionError):
        contract.test_probabilities_of_all_images_sum_to_one("diagonal_bilstm-oblong")
