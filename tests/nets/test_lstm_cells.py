"""LSTM cells against torch's own, on vectors and on maps of one place; gates at their first values."""

from __future__ import annotations

import torch
from torch import nn

from dgm.nets.lstm_cells import ConvLSTMCell, LSTMCell
from dgm.seeds import generator_for


def torch_cell(weight: torch.Tensor, bias: torch.Tensor, num_inputs: int) -> nn.LSTMCell:
    """torch's cell with the same weights: its gates stand in the order input, forget, candidate, output."""
    reference = nn.LSTMCell(num_inputs, weight.shape[0] // 4).double()
    swapped = torch.cat([weight.chunk(4)[gate] for gate in (0, 1, 3, 2)])
    with torch.no_grad():
        reference.weight_ih.copy_(swapped[:, :num_inputs])
        reference.weight_hh.copy_(swapped[:, num_inputs:])
        reference.bias_ih.copy_(torch.cat([bias.chunk(4)[gate] for gate in (0, 1, 3, 2)]))
        reference.bias_hh.zero_()
    return reference


def test_vector_cell_is_torch_s() -> None:
    torch.manual_seed(0)
    cell = LSTMCell(5, 3).double()
    x, h, c = (torch.randn(4, size, generator=generator_for(0), dtype=torch.float64) for size in (5, 3, 3))
    expected = torch_cell(cell.gates.weight, cell.gates.bias, 5)(x, (h, c))
    for found, reference in zip(cell([x[:, :2], x[:, 2:]], (h, c)), expected, strict=True):
        assert torch.allclose(found, reference, atol=1e-12)


def test_map_cell_is_a_vector_cell_where_its_kernel_is_one_place() -> None:
    torch.manual_seed(0)
    cell = ConvLSTMCell(5, 3, 1).double()
    x, h, c = (torch.randn(2, size, 2, 3, generator=generator_for(0), dtype=torch.float64) for size in (5, 3, 3))
    assert cell.gates.bias is not None
    reference = torch_cell(cell.gates.weight.flatten(1), cell.gates.bias, 5)
    rows = [part.movedim(1, -1).flatten(0, -2) for part in (x, h, c)]
    expected = reference(rows[0], (rows[1], rows[2]))
    for found, one in zip(cell([x], (h, c)), expected, strict=True):
        assert torch.allclose(found.movedim(1, -1).flatten(0, -2), one, atol=1e-12)


def test_a_map_cell_keeps_the_grid_and_sees_its_neighbours() -> None:
    cell = ConvLSTMCell(1, 2, 3)
    state = cell.first_state(1, 5, 5)
    plain, _ = cell([torch.zeros(1, 1, 5, 5)], state)
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1.0
    moved = (cell([x], state)[0] - plain).abs().sum(dim=(0, 1)) > 0
    assert moved.shape == (5, 5)
    assert bool(moved[1:4, 1:4].all())
    assert int(moved.sum()) == 9


def test_forget_gates_are_open_at_first_and_the_first_state_is_learned() -> None:
    cell = LSTMCell(2, 3)
    assert cell.gates.bias.tolist() == [0.0] * 3 + [1.0] * 3 + [0.0] * 6
    with torch.no_grad():
        cell.first[1] = 0.5
    shown, kept = cell.first_state(4)
    assert shown.tolist() == [[0.0] * 3] * 4
    assert kept.tolist() == [[0.5] * 3] * 4
