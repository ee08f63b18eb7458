"""The linear prediction of a pixel: what it is fitted to, where it looks, what it does at the border."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.nets.local_prediction import LocalPrediction, causal_offsets
from dgm.types import ImageSpec

SPEC = ImageSpec(channels=2, height=6, width=7, levels=9)


def fitted(images: Tensor, radius: int = 2, spec: ImageSpec = SPEC) -> LocalPrediction:
    local = LocalPrediction(spec, radius).double()
    local.fit(images, 1e-9)
    return local


def maps(local: LocalPrediction, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values, predictions and scales."""
    x = unit_from_levels(images, local.spec.levels, torch.float64)
    prediction = local.predict(local.pad(x), local.inside)
    return x, prediction, local.scale(local.pad(x - prediction), local.inside)


def random_images(count: int, spec: ImageSpec = SPEC) -> Tensor:
    return torch.randint(spec.levels, (count, *spec.shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_offsets_are_the_earlier_half_of_a_square() -> None:
    assert causal_offsets(1) == [(-1, -1), (-1, 0), (-1, 1), (0, -1)]
    assert len(causal_offsets(3)) == 24


def test_a_linear_rule_is_found_and_its_error_is_at_the_floor() -> None:
    """Each row repeats the row above, the top row is constant."""
    images = torch.full((30, *SPEC.shape), 4, dtype=torch.uint8)
    images[15:] = 7
    local = fitted(images)
    x, prediction, scale = maps(local, images)
    assert float((x - prediction)[:, :, 1:, 1:].abs().max()) < 1e-3
    assert float(scale[:, :, 3:, 3:].max()) == pytest.approx(1 / 8, abs=1e-3)


def test_it_is_the_least_squares_solution() -> None:
    """The residual is orthogonal to every neighbour: nothing linear is left in it; so is that of the error."""
    images = random_images(200)
    local = fitted(images)
    x, prediction, scale = maps(local, images)
    residual = x - prediction
    error = residual.abs().mean(dim=1, keepdim=True)
    padded, padded_error = local.pad(x), local.pad(error)
    for rows, columns in causal_offsets(2):
        window = (slice(None), slice(None), slice(2 + rows, 8 + rows), slice(2 + columns, 9 + columns))
        inside = local.inside[window]
        assert torch.einsum("nchw,ndhw->cd", residual, padded[window]).abs().max() < 1e-4
        assert (residual * inside).sum(dim=(0, 2, 3)).abs().max() < 1e-4
        free = scale > 1 / 8
        assert bool(free.all())
        assert float(((error - scale) * padded_error[window]).sum().abs()) < 1e-4
    covariance = torch.einsum("nchw,ndhw->cd", residual, residual)
    assert float(local.coefficients[1, 0]) == pytest.approx(float(covariance[0, 1] / covariance[0, 0]), rel=1e-6)
    assert bool((local.coefficients.triu() == 0).all())


def test_nothing_later_is_seen() -> None:
    images = random_images(40)
    local = fitted(images)
    _, before, scale_before = maps(local, images[:1])
    for pixel in range(SPEC.num_pixels):
        changed = images[:1].clone()
        changed.flatten(2)[:, :, pixel] = 8 - changed.flatten(2)[:, :, pixel]
        _, after, scale_after = maps(local, changed)
        for one, other in ((before, after), (scale_before, scale_after)):
            assert torch.equal(one.flatten(2)[:, :, : pixel + 1], other.flatten(2)[:, :, : pixel + 1])


def test_a_part_of_the_image_is_predicted_alike() -> None:
    images = random_images(40)
    local = fitted(images)
    x, prediction, scale = maps(local, images)
    rows, columns = slice(3, 6), slice(4, 9)
    padded, residual = local.pad(x), local.pad(x - prediction)
    inside = local.inside[:, :, rows, columns]
    torch.testing.assert_close(local.predict(padded[:, :, rows, columns], inside)[..., 0, 0], prediction[:, :, 3, 4])
    torch.testing.assert_close(local.scale(residual[:, :, rows, columns], inside)[..., 0, 0], scale[:, :, 3, 4])


def test_number_of_parameters() -> None:
    local = LocalPrediction(ImageSpec(3, 32, 32, 256), 3)
    window = 2 * 3 * 4
    assert local.num_parameters() == 3 * (4 * window + 1) + (2 * window + 1) + 3
