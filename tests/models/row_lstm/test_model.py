"""Row LSTM: published size, receptive field. The contract tests do the rest."""

from __future__ import annotations

import pytest
import torch

from dgm.models.row_lstm.model import RowLSTM, RowLSTMConfig
from dgm.nets.softmax_head import SoftmaxHead
from dgm.types import CIFAR10, ImageSpec
from tests.tiny import PLAIN, random_images

TINY = RowLSTMConfig(num_hidden=4, num_layers=2, num_head_features=7, num_mixtures=0, **PLAIN)


def random_model(spec: ImageSpec, config: RowLSTMConfig = TINY) -> RowLSTM:
    torch.manual_seed(0)
    model = RowLSTM(spec, config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def visible_pixels(model: RowLSTM, row: int, column: int) -> int:
    """How many pixels the logits of one pixel depend on: positive weights, so that no paths cancel and no ReLU dies."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.rand_like(parameter) + 0.05)
    x = torch.ones(1, *model.spec.shape, dtype=torch.float64, requires_grad=True)
    assert isinstance(model.readout, SoftmaxHead)
    (gradient,) = torch.autograd.grad(model.readout.logits(model.features(x))[0, row, column].sum(), x)
    return int((gradient != 0).any(dim=1).sum())


def test_published_size() -> None:
    model = RowLSTM(
        CIFAR10, RowLSTMConfig(num_hidden=128, num_layers=12, num_head_features=1024, num_mixtures=0, **PLAIN)
    )
    assert model.num_parameters() == 9_621_248


@pytest.mark.parametrize(
    ("num_layers", "row", "column", "expected"),
    [(12, 16, 0, 184), (12, 16, 16, 449), (12, 16, 31, 407), (12, 31, 16, 929), (2, 16, 16, 384), (2, 16, 31, 237)],
)
def test_receptive_field_has_the_wedge_of_the_paper(num_layers: int, row: int, column: int, expected: int) -> None:
    config = RowLSTMConfig(num_hidden=2, num_layers=num_layers, num_head_features=2, num_mixtures=0, **PLAIN)
    model = RowLSTM(ImageSpec(channels=1, height=32, width=32, levels=2), config).double()
    assert visible_pixels(model, row, column) == expected


def test_the_states_above_are_not_masked() -> None:
    # an R logit depends on the B of the row above also through the recurrence alone
    spec = ImageSpec(channels=3, height=12, width=1, levels=2)
    model = random_model(spec, RowLSTMConfig(num_hidden=6, num_layers=1, num_head_features=7, num_mixtures=0, **PLAIN))
    images = random_images(spec, 1).repeat(2, 1, 1, 1)
    images[1, 2, 0, 0] = 1 - images[1, 2, 0, 0]
    with torch.no_grad():
        first, second = model.log_pmf(images)[:, 0, 8, 0]  # the stem sees three rows up, the recurrence all of them
    assert float((first - second).abs().max()) > 1e-9
