"""Log-determinants against autograd's Jacobian at random weights; inverses; the layout of masks and squeezes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dgm.nets.flow_layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    FlowBatchNorm,
    FlowLayer,
    Logit,
    ResidualNetwork,
    Squeeze,
    channel_mask,
    checkerboard_mask,
)

SHAPE = (4, 4, 4)


def affine(mask: Tensor) -> FlowLayer:
    return AffineCoupling(mask.expand(1, *SHAPE).clone(), ResidualNetwork(8, 8, 5, 2, has_batch_norm=False))


def additive(parity: int) -> FlowLayer:
    half = 32
    return AdditiveCoupling(nn.Sequential(nn.Linear(half, 7), nn.Tanh(), nn.Linear(7, half)), parity)


LAYERS: dict[str, Callable[[], FlowLayer]] = {
    "logit": lambda: Logit(levels=4, margin=0.05),
    "squeeze": Squeeze,
    "act_norm": lambda: ActNorm(4),
    "batch_norm": lambda: FlowBatchNorm(4),
    "checkerboard": lambda: affine(checkerboard_mask(4, 4, 1)),
    "channels": lambda: affine(channel_mask(4, 0)),
    "additive_even": lambda: additive(0),
    "additive_odd": lambda: additive(1),
}


def random_layer(name: str) -> FlowLayer:
    torch.manual_seed(0)
    layer = LAYERS[name]().double().eval()
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            if "norm" in name or isinstance(tensor, nn.Parameter):
                tensor.add_(torch.rand_like(tensor) * (0.5 if "norm" in name else 0.2))
    return layer


def random_input(name: str, count: int = 2) -> Tensor:
    torch.manual_seed(1)
    x = 4 * torch.rand(count, *SHAPE, dtype=torch.float64)
    return x.flatten(1) if name.startswith("additive") else x


@pytest.mark.parametrize("name", LAYERS)
def test_log_determinant_is_that_of_the_jacobian(name: str) -> None:
    layer, x = random_layer(name), random_input(name)
    zero = torch.zeros(1, dtype=torch.float64)
    _, log_det = layer(x, torch.zeros(2, dtype=torch.float64))
    for number, image in enumerate(x):
        jacobian = torch.func.jacrev(lambda v: layer(v.unsqueeze(0), zero)[0].flatten())(image)
        _, expected = torch.linalg.slogdet(jacobian.reshape(image.numel(), image.numel()))
        assert float(log_det[number].detach()) == pytest.approx(float(expected), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_inverse_undoes_forward_in_both_orders(name: str) -> None:
    layer, x = random_layer(name), random_input(name)
    zeros = torch.zeros(2, dtype=torch.float64)
    y, _ = layer(x, zeros)
    assert torch.allclose(layer.inverse(y), x, atol=1e-9)
    again, _ = layer(layer.inverse(y), zeros)
    assert torch.allclose(again, y, atol=1e-9)
    single = layer.float()
    y32, _ = single(x.float(), zeros)
    assert torch.allclose(single.inverse(y32), x.float(), atol=1e-3)


def test_couplings_change_something_and_only_their_half() -> None:
    for name, kept in (("checkerboard", checkerboard_mask(4, 4, 1)), ("channels", channel_mask(4, 0))):
        layer, x = random_layer(name), random_input(name)
        y, log_det = layer(x, torch.zeros(2, dtype=torch.float64))
        is_same = (y == x).all(dim=0)
        assert torch.equal(is_same, kept.bool().expand(1, *SHAPE)[0])
        assert bool((log_det != 0).all())


def test_batch_norm_uses_the_batch_in_training_and_its_average_in_evaluation() -> None:
    layer = FlowBatchNorm(2, decay=0.5).train()
    x = torch.randn(50, 2, 3, 3) * 3 + 5
    y, log_det = layer(x, torch.zeros(50, dtype=torch.float64))
    assert torch.allclose(y.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(y.var(dim=(0, 2, 3), correction=0), torch.ones(2), atol=1e-3)
    expected = -0.5 * (x.var(dim=(0, 2, 3), correction=0) + 1e-4).log().sum() * 9
    assert float(log_det[0]) == pytest.approx(float(expected), rel=1e-5)
    assert float(layer.mean.mean()) == pytest.approx(2.5, abs=0.3)
    layer.eval()
    alone, _ = layer(x[:1], torch.zeros(1))
    together, _ = layer(x, torch.zeros(50))
    assert torch.equal(alone[0], together[0])


def test_norms_start_with_mean_zero_and_variance_one() -> None:
    x = torch.randn(100, 4, 4, 4) * 7 - 2
    for layer in (ActNorm(4), FlowBatchNorm(4).eval()):
        layer.initialise(x)
        y, _ = layer(x, torch.zeros(100))
        assert torch.allclose(y.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4)
        assert torch.allclose(y.var(dim=(0, 2, 3)), torch.ones(4), atol=1e-2)


def test_a_factored_half_of_a_squeeze_is_a_checkerboard() -> None:
    rows, columns = torch.arange(4).unsqueeze(1), torch.arange(4)
    parity = ((rows + columns) % 2).float().view(1, 1, 4, 4)
    squeezed, _ = Squeeze()(parity, torch.zeros(1))
    assert torch.equal(squeezed[:, :2], torch.zeros(1, 2, 2, 2))
    assert torch.equal(squeezed[:, 2:], torch.ones(1, 2, 2, 2))
