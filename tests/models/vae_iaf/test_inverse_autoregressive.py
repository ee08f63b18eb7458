"""The flow's Jacobian: strictly triangular dependence in raster order, log-determinant of autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgm.models.vae_iaf.inverse_autoregressive import InverseAutoregressiveStep

SHAPE = (3, 2, 3)  # latents, rows, columns


def random_step(num_hidden_layers: int) -> tuple[InverseAutoregressiveStep, Tensor, Tensor]:
    torch.manual_seed(0)
    step = InverseAutoregressiveStep(SHAPE[0], 7, num_hidden_layers).double()
    with torch.no_grad():
        for parameter in step.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    z = torch.randn(1, *SHAPE, dtype=torch.float64)
    return step, z, torch.randn(1, 7, *SHAPE[1:], dtype=torch.float64)


def in_raster_order(z: Tensor) -> Tensor:
    """Place after place, the latents of a place together. Shapes: (1, K, h, w) -> (h w K,)."""
    return z[0].permute(1, 2, 0).flatten()


def from_raster_order(flat: Tensor) -> Tensor:
    return flat.view(SHAPE[1], SHAPE[2], SHAPE[0]).permute(2, 0, 1).unsqueeze(0)


@pytest.mark.parametrize("num_hidden_layers", [1, 2])
def test_shift_and_scale_read_only_what_comes_before(num_hidden_layers: int) -> None:
    step, z, context = random_step(num_hidden_layers)
    for part in (0, 1):
        jacobian = torch.func.jacrev(
            lambda flat, part=part: in_raster_order(step.shift_and_log_scale(from_raster_order(flat), context)[part])
        )(in_raster_order(z))
        assert torch.equal(jacobian.triu(), torch.zeros_like(jacobian))
        assert bool((jacobian.diagonal(-1) != 0).any())
        assert bool(jacobian[-1, :3].any())  # the last place reads the first one


@pytest.mark.parametrize("num_hidden_layers", [1, 2])
def test_log_determinant_is_autograds(num_hidden_layers: int) -> None:
    step, z, context = random_step(num_hidden_layers)
    jacobian = torch.func.jacrev(lambda flat: in_raster_order(step(from_raster_order(flat), context)[0]))(
        in_raster_order(z)
    )
    _, log_diagonal = step(z, context)
    assert float(log_diagonal.sum().detach()) == pytest.approx(
        float(torch.linalg.slogdet(jacobian)[1].detach()), abs=1e-10
    )
    assert abs(float(log_diagonal.sum().detach())) > 0.1


def test_it_is_the_identity_at_first() -> None:
    step = InverseAutoregressiveStep(2, 5, 2)
    z = torch.randn(2, 2, 3, 3)
    moved, log_diagonal = step(z, torch.randn(2, 5, 3, 3))
    assert torch.equal(moved, z)
    assert not log_diagonal.any()


def test_the_context_moves_the_flow() -> None:
    step, z, context = random_step(2)
    assert not torch.allclose(step(z, context)[0], step(z, context + 1)[0])
