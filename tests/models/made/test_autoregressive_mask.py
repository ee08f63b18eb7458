from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgm.models.made.autoregressive_mask import draw_degrees, may_read, may_read_strictly, ranks_of
from dgm.seeds import generator_for


def paths(ranks: Tensor, degrees: list[Tensor]) -> Tensor:
    """Number of ways from each input to each output through the hidden layers, (outputs, inputs)."""
    total, below = torch.eye(len(ranks)), ranks
    for layer in degrees:
        total, below = may_read(below, layer).float() @ total, layer
    return may_read_strictly(below, ranks).float() @ total


@pytest.mark.parametrize("sizes", [[40], [40, 30, 50]])
def test_an_output_is_reached_from_all_lower_ranks_and_no_others(sizes: list[int]) -> None:
    order = torch.randperm(9, generator=generator_for(1))
    ranks = ranks_of(order)
    reached = paths(ranks, draw_degrees(9, sizes, generator_for(2))) > 0
    assert torch.equal(reached, ranks.unsqueeze(1) > ranks)


def test_ranks_invert_the_order() -> None:
    order = torch.tensor([2, 0, 3, 1])
    assert ranks_of(order).tolist() == [1, 3, 0, 2]


def test_degrees_of_the_first_layer_cover_the_ranks_evenly() -> None:
    degrees = draw_degrees(301, [30], generator_for(0))[0].sort().values
    gaps = degrees.diff()
    assert int(gaps.min()) >= 9
    assert int(gaps.max()) <= 11
    assert 0 <= int(degrees[0]) < 10
    assert 290 <= int(degrees[-1]) <= 299


def test_later_units_always_have_something_to_read() -> None:
    first, second = draw_degrees(1000, [2, 50], generator_for(3))
    assert bool(may_read(first, second).any(dim=1).all())


def test_masks_are_a_function_of_the_generator() -> None:
    assert torch.equal(draw_degrees(50, [7], generator_for(5))[0], draw_degrees(50, [7], generator_for(5))[0])
    assert not torch.equal(draw_degrees(50, [7], generator_for(5))[0], draw_degrees(50, [7], generator_for(6))[0])
