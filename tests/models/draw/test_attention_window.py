"""The attention window: filters that sum to one, windows that cover and tile, a patch that comes back."""

from __future__ import annotations

import pytest
import torch

from dgm.models.draw.attention_window import AttentionWindow, filters, parameters_of_cover, parameters_of_tiles
from dgm.seeds import generator_for


def image(height: int = 12, width: int = 16) -> torch.Tensor:
    return torch.randn(1, 2, height, width, generator=generator_for(0), dtype=torch.float64)


def test_filters_sum_to_one_wherever_they_stand_and_are_gaussian_inside() -> None:
    parameters = 3 * torch.randn(200, 5, generator=generator_for(0), dtype=torch.float64)
    window = AttentionWindow.from_parameters(parameters, 5, 12, 16)
    assert window.rows.shape == (200, 5, 12)
    assert window.columns.shape == (200, 5, 16)
    for part in (window.rows, window.columns):
        assert torch.allclose(part.sum(dim=-1), torch.ones(200, 5, dtype=torch.float64))
    one = torch.ones(1, dtype=torch.float64)
    found = filters(20 * one, 3 * one, one / 2.0**2, 3, 41)[0, 0]
    expected = torch.exp(-((torch.arange(41).double() - 17) ** 2) / 8) / (8 * torch.pi) ** 0.5
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_paper_s_grid() -> None:
    # equations 19, 20, 22 to 24: pixel 1 is our pixel 0
    centre, log_stride, size, height, width = 0.1, -1.4, 4, 12, 16
    parameters = torch.tensor([[0.0, centre, 0.0, log_stride, 0.3]], dtype=torch.float64)
    window = AttentionWindow.from_parameters(parameters, size, height, width)
    stride = 15 / 3 * torch.tensor(log_stride).exp()
    means = 17 / 2 * (centre + 1) + (torch.arange(1, 5) - size / 2 - 0.5) * stride - 1
    found = window.columns[0] @ torch.arange(16).double()
    assert torch.allclose(found, means.double(), atol=1e-3)
    assert float(window.gain) == pytest.approx(float(torch.tensor(0.3).exp()))


def test_a_wide_window_covers_the_whole_image_evenly() -> None:
    parameters = parameters_of_cover(5, 32, 32).double()[None]
    window = AttentionWindow.from_parameters(parameters, 5, 32, 32)
    painted = window.gain * window.write(torch.ones(1, 1, 5, 5, dtype=torch.float64))
    assert float(painted.min()) > 0.4
    assert float(painted.mean()) == pytest.approx(1.0, abs=0.05)
    seen = window.rows.sum(dim=1)
    assert float(seen.min()) > 0.4 * float(seen.max())


def test_sharp_windows_tile_the_image_read_a_known_patch_and_write_it_back() -> None:
    x = image()
    parameters = parameters_of_tiles(4, 12, 16, 0.2).double()
    assert parameters.shape == (12, 5)
    painted = torch.zeros_like(x)
    for tile, one in enumerate(parameters):
        window = AttentionWindow.from_parameters(one[None], 4, 12, 16)
        top, left = 4 * (tile // 4), 4 * (tile % 4)
        glimpse = window.read(x)
        assert torch.allclose(glimpse, x[:, :, top : top + 4, left : left + 4], atol=1e-4)
        painted += window.gain * window.write(glimpse)
    assert torch.allclose(painted, x, atol=1e-4)


def test_windows_that_do_not_tile_are_refused() -> None:
    with pytest.raises(ValueError, match="windows of 5 x 5 do not tile 12 x 16"):
        parameters_of_tiles(5, 12, 16, 0.2)


def test_each_image_has_its_own_window() -> None:
    parameters = torch.randn(3, 5, generator=generator_for(1), dtype=torch.float64)
    x = image().repeat(3, 1, 1, 1)
    together = AttentionWindow.from_parameters(parameters, 3, 12, 16).read(x)
    alone = AttentionWindow.from_parameters(parameters[1:2], 3, 12, 16).read(x[1:2])
    assert torch.allclose(together[1:2], alone)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_extreme_parameters_stay_finite_with_their_gradients(extreme: float) -> None:
    parameters = torch.full((1, 5), extreme, requires_grad=True)
    window = AttentionWindow.from_parameters(parameters, 3, 12, 16)
    written = window.gain * window.write(window.read(image().float()))
    written.sum().backward()
    assert bool(written.isfinite().all())
    assert parameters.grad is not None
    assert bool(parameters.grad.isfinite().all())
