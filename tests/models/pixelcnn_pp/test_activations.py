"""Fused steps of PixelCNN++ against their plain formulas, and their gradients against finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.models.pixelcnn_pp.activations import DropoutMask, activate, concat_elu, dropout_mask, gated_residual


def draws(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


@pytest.mark.parametrize("is_cropped", [False, True])
@pytest.mark.parametrize("has_link", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_activation_is_the_concatenated_elu_with_its_gradient(is_cropped: bool, has_link: bool, dropout: float) -> None:
    whole = draws(2, 3, 5, 5) if is_cropped else draws(2, 3, 4, 4)
    link = draws(2, 3, 4, 4, seed=1) if has_link else None
    torch.manual_seed(2)
    mask = dropout_mask((2, 6, 4, 4), dropout, whole) if dropout else None

    def fused(whole: Tensor, *links: Tensor) -> Tensor:
        return activate(whole[:, :, :4, :4], links[0] if links else None, mask)

    x = whole[:, :, :4, :4] if link is None else whole[:, :, :4, :4] + link
    plain = concat_elu(x) * (mask.factors if mask else 1)
    inputs = (whole,) if link is None else (whole, link)
    torch.testing.assert_close(fused(*inputs), plain, rtol=1e-12, atol=1e-15)
    assert torch.autograd.gradcheck(fused, inputs)


def test_activation_at_zero_at_infinity_and_at_tiny_numbers() -> None:
    x = torch.tensor([0.0, torch.inf, -torch.inf, 1e-9, -1e-9, 300.0, -300.0]).view(1, 1, 1, -1).requires_grad_()
    activated = activate(x)
    torch.testing.assert_close(activated, concat_elu(x), rtol=0, atol=1e-7)
    (gradient,) = torch.autograd.grad(activated[:, 0].sum(), x)
    assert gradient.flatten().tolist() == pytest.approx([1, 1, 0, 1, 1, 1, 0], abs=1e-6)


def test_a_number_that_is_none_stays_so() -> None:
    assert activate(torch.full((1, 1, 1, 1), torch.nan)).isnan().all()


@pytest.mark.parametrize("is_cropped", [False, True])
def test_gate_is_the_gated_linear_unit_with_its_gradient(is_cropped: bool) -> None:
    x, whole = draws(2, 3, 4, 4), draws(2, 6, 5, 5, seed=1) if is_cropped else draws(2, 6, 4, 4, seed=1)

    def fused(x: Tensor, whole: Tensor) -> Tensor:
        return gated_residual(x, whole[:, :, :4, :4])

    torch.testing.assert_close(fused(x, whole), x + F.glu(whole[:, :, :4, :4], dim=1), rtol=1e-12, atol=1e-15)
    assert torch.autograd.gradcheck(fused, (x, whole))


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.99])
def test_mask_drops_its_share_and_keeps_the_mean(dropout: float) -> None:
    torch.manual_seed(0)
    mask = dropout_mask((20, 50, 20, 10), dropout, torch.empty(0))
    num = mask.factors.numel()
    deviation = (dropout * (1 - dropout) / num) ** 0.5
    assert float((mask.factors == 0).double().mean()) == pytest.approx(dropout, abs=4 * deviation + 2**-17)
    assert mask.factors.unique().tolist() == [0.0, pytest.approx(mask.scale)]
    assert mask.scale == pytest.approx(1 / (1 - dropout), rel=1e-3)
    assert not torch.equal(mask.factors, dropout_mask((20, 50, 20, 10), dropout, torch.empty(0)).factors)


def test_neighbours_are_dropped_independently() -> None:
    """Four numbers share a draw of 64 bits: none of them tells of another."""
    torch.manual_seed(0)
    is_kept = (dropout_mask((1, 8, 250, 400), 0.5, torch.empty(0)).factors > 0).double()
    rows = is_kept.permute(0, 2, 3, 1).reshape(-1, 8).T  # in the order of the draws
    assert (torch.corrcoef(rows) - torch.eye(8, dtype=torch.float64)).abs().max() < 0.02


def test_the_same_seed_gives_the_same_mask() -> None:
    masks: list[DropoutMask] = []
    for _ in range(2):
        torch.manual_seed(5)
        masks.append(dropout_mask((2, 3, 5, 7), 0.5, torch.empty(0)))
    assert torch.equal(masks[0].factors, masks[1].factors)
