"""Masks: what each output sees, by Jacobian; degrees of stacked groups; dead weights never move."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from dgm.nets.masked_conv import MaskedConv2d, degree_mask, feature_degrees, input_degrees, logit_degrees
from dgm.types import ImageSpec

RGB = ImageSpec(3, 5, 6, 4)


def dependencies(layer: MaskedConv2d, spec: ImageSpec) -> Tensor:
    """Which input moves which output, as bool (O, H, W, I, H, W)."""
    x = torch.zeros(1, layer.weight.shape[1], spec.height, spec.width, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(layer.double(), x)
    assert isinstance(jacobian, Tensor)
    return jacobian[0, :, :, :, 0] != 0


@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (7, 7), (1, 3), (1, 5)])
def test_sees_exactly_the_causal_part_of_its_window(kernel: tuple[int, int], kind: Literal["A", "B"]) -> None:
    torch.manual_seed(0)
    in_degrees, out_degrees = input_degrees(RGB), feature_degrees(4, RGB)
    seen = dependencies(MaskedConv2d(in_degrees, out_degrees, kernel, kind), RGB)
    for o, row, column, i, r, c in torch.cartesian_prod(*map(torch.arange, seen.shape)).tolist():
        in_window = abs(row - r) <= kernel[0] // 2 and abs(column - c) <= kernel[1] // 2
        if (r, c) == (row, column):
            limit = int(out_degrees[o]) - (kind == "A")
            is_past = int(in_degrees[i]) <= limit
        else:
            is_past = (r, c) < (row, column)
        assert bool(seen[o, row, column, i, r, c]) == (in_window and is_past)


def test_stacked_groups_share_degrees_when_three_does_not_divide_them() -> None:
    degrees = feature_degrees(128, RGB, num_parts=2)
    assert torch.equal(degrees[:128], degrees[128:])
    assert degrees[:4].tolist() == [0, 1, 2, 0]


def test_logits_of_a_channel_have_its_degree() -> None:
    assert logit_degrees(ImageSpec(3, 1, 1, 2)).tolist() == [0, 0, 1, 1, 2, 2]


def test_masks_of_a_grey_image_are_the_plain_ones() -> None:
    grey = ImageSpec(1, 2, 2, 2)
    assert not degree_mask(input_degrees(grey), feature_degrees(3, grey), "A").any()
    assert degree_mask(input_degrees(grey), feature_degrees(3, grey), "B").all()


def test_whole_kernel_is_stored_and_masked_weights_get_no_gradient() -> None:
    layer = MaskedConv2d(input_degrees(RGB), feature_degrees(6, RGB), (3, 3), "A")
    assert layer.weight.shape == (6, 3, 3, 3)
    layer(torch.randn(2, 3, 5, 6)).square().sum().backward()
    gradient = layer.weight.grad
    assert gradient is not None
    assert (gradient[:, :, 2] == 0).all() and (gradient[:, :, 1, 2] == 0).all()
    assert torch.equal(gradient[:, :, :2] != 0, layer.mask != 0)


def test_mask_is_no_state_and_follows_the_dtype() -> None:
    layer = MaskedConv2d(input_degrees(RGB), feature_degrees(6, RGB), (1, 3), "B").double()
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert layer.mask.dtype == torch.float64


def test_even_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        MaskedConv2d(input_degrees(RGB), feature_degrees(6, RGB), (2, 3), "B")
