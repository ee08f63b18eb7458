from __future__ import annotations

import torch

from dgm.nets.level_logits import LevelLogits, cosine_basis


def test_basis_is_orthogonal_so_every_linear_map_can_be_written() -> None:
    basis = cosine_basis(16)
    products = basis.T @ basis
    torch.testing.assert_close(products, torch.diag(products.diagonal()), rtol=0, atol=1e-12)
    assert products.diagonal().min() > 0.5


def test_low_frequencies_are_smooth_over_levels_and_damped_least() -> None:
    basis = cosine_basis(64)
    roughness = basis.diff(dim=0).square().sum(dim=0) / basis.square().sum(dim=0)
    assert (roughness.diff() > 0).all()
    assert (basis.square().sum(dim=0)[1:].diff() < 0).all()


def test_logits_start_at_zero_and_follow_the_linear_map() -> None:
    layer, features = LevelLogits(3, 8).double(), torch.randn(5, 3, dtype=torch.float64)
    assert not layer(features).any()
    torch.nn.init.normal_(layer.coefficients)
    torch.nn.init.normal_(layer.bias)
    weight, bias = layer.linear()
    torch.testing.assert_close(layer(features), features @ weight.T + bias)
    layer(features)[:, 5].sum().backward()
    assert layer.coefficients.grad is not None
    assert (layer.coefficients.grad.abs() > 0).all()  # one level informs every coefficient
