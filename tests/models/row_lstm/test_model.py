"""Row LSTM: published size and receptive field, probabilities that sum to one, cached conditionals."""

from __future__ import annotations

import pytest
import torch

from dgm.model_api.ancestral import RecomputedConditionals
from dgm.models.row_lstm.model import RowLSTM, RowLSTMConfig
from dgm.nets.softmax_head import SoftmaxHead
from dgm.types import CIFAR10, ImageSpec
from tests.tiny import all_images, random_images

TINY = RowLSTMConfig(num_hidden=4, num_layers=2, num_head_features=7, num_mixtures=0)


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
    model = RowLSTM(CIFAR10, RowLSTMConfig(num_hidden=128, num_layers=12, num_head_features=1024, num_mixtures=0))
    assert model.num_parameters() == 9_621_248


@pytest.mark.parametrize(
    ("num_layers", "row", "column", "expected"),
    [(12, 16, 0, 184), (12, 16, 16, 449), (12, 16, 31, 407), (12, 31, 16, 929), (2, 16, 16, 384), (2, 16, 31, 237)],
)
def test_receptive_field_has_the_wedge_of_the_paper(num_layers: int, row: int, column: int, expected: int) -> None:
    config = RowLSTMConfig(num_hidden=2, num_layers=num_layers, num_head_features=2, num_mixtures=0)
    model = RowLSTM(ImageSpec(channels=1, height=32, width=32, levels=2), config).double()
    assert visible_pixels(model, row, column) == expected


def test_untrained_model_is_uniform() -> None:
    spec = ImageSpec(channels=3, height=4, width=4, levels=8)
    nats = RowLSTM(spec, TINY).log_prob(random_images(spec, 2))
    torch.testing.assert_close(nats, torch.full((2,), 48, dtype=torch.float64) * -torch.log(torch.tensor(8.0)).double())


@pytest.mark.parametrize("num_mixtures", [0, 2])
def test_probabilities_of_all_two_by_two_images_sum_to_one(num_mixtures: int) -> None:
    spec = ImageSpec(channels=3, height=2, width=2, levels=2)
    config = RowLSTMConfig(num_hidden=4, num_layers=2, num_head_features=7, num_mixtures=num_mixtures)
    with torch.no_grad():
        total = random_model(spec, config).log_prob(all_images(spec)).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("num_hidden", "num_mixtures"), [(4, 0), (6, 0), (6, 3)])
def test_cached_conditionals_are_the_recomputed_ones(num_hidden: int, num_mixtures: int) -> None:
    spec = ImageSpec(channels=3, height=4, width=5, levels=3)
    config = RowLSTMConfig(num_hidden=num_hidden, num_layers=2, num_head_features=7, num_mixtures=num_mixtures)
    model = random_model(spec, config)
    images = random_images(spec, 2).flatten(1).long()
    cached, recomputed = model.conditionals(2), RecomputedConditionals(model, 2)
    for index in model.order().tolist():
        torch.testing.assert_close(cached.log_pmf(), recomputed.log_pmf(), rtol=0, atol=1e-12)
        cached.push(images[:, index])
        recomputed.push(images[:, index])


def test_the_states_above_are_not_masked() -> None:
    # an R logit depends on the B of the row above also through the recurrence alone
    spec = ImageSpec(channels=3, height=12, width=1, levels=2)
    model = random_model(spec, RowLSTMConfig(num_hidden=6, num_layers=1, num_head_features=7, num_mixtures=0))
    images = random_images(spec, 1).repeat(2, 1, 1, 1)
    images[1, 2, 0, 0] = 1 - images[1, 2, 0, 0]
    with torch.no_grad():
        first, second = model.log_pmf(images)[:, 0, 8, 0]  # the stem sees three rows up, the recurrence all of them
    assert float((first - second).abs().max()) > 1e-9
