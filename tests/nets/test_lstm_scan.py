"""The scans against a plain loop over pixels, their gradients, and what each position can see."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmarks.lstm_scans import scan_by_pixel
from dgm.nets.lstm_scan import ScanPattern, diagonal_pattern, row_pattern, scan

PATTERNS = {
    "row": row_pattern(3, 4),
    "diagonal": diagonal_pattern(3, 4),
    "spatial": diagonal_pattern(4, 3, carried=2, is_product_squashed=True),
    "row, one column": row_pattern(3, 1),
    "diagonal, one column": diagonal_pattern(3, 1),
    "diagonal, two columns": diagonal_pattern(3, 2),
    "diagonal, one row": diagonal_pattern(1, 3),
}


def inputs_of(pattern: ScanPattern, groups: int = 2, num_images: int = 2, width: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = pattern.num_gates * width
    shapes = [
        (groups, pattern.height * pattern.width, num_images, features),
        (groups, len(pattern.context) * width, features),
        (groups, width),
        (groups, width),
    ]
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("name", PATTERNS)
def test_scan_equals_the_loop_over_pixels(name: str) -> None:
    pattern = PATTERNS[name]
    gates, weight, start_h, start_c = inputs_of(pattern)
    expected = scan_by_pixel(gates, weight, pattern, start_h, start_c)
    torch.testing.assert_close(scan(gates, weight, pattern, start_h, start_c), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", PATTERNS)
def test_gradients_equal_those_of_the_loop_over_pixels(name: str) -> None:
    pattern = PATTERNS[name]
    inputs = inputs_of(pattern)
    gates, weight, start_h, start_c = inputs
    upstream = torch.randn(scan(gates, weight, pattern, start_h, start_c).shape, dtype=torch.float64)
    outputs = scan_by_pixel(gates, weight, pattern, start_h, start_c)
    expected = torch.autograd.grad(outputs, inputs, upstream, materialize_grads=True)
    computed = torch.autograd.grad(scan(gates, weight, pattern, start_h, start_c), inputs, upstream)
    for ours, theirs in zip(computed, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        # the row LSTM sees a triangle above, three cells wide one row up; the diagonal sees all above and to the left
        ("row", {(0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 2)}),
        ("diagonal", {(r, q) for r in range(3) for q in range(3)}),
    ],
)
def test_receptive_field_of_one_position(name: str, seen: set[tuple[int, int]]) -> None:
    pattern = PATTERNS[name]
    gates, weight, start_h, start_c = inputs_of(pattern, groups=1)
    out = scan(gates.abs(), weight.abs(), pattern, start_h, start_c)
    (gradient,) = torch.autograd.grad(out[0, 2 * pattern.width + 2].sum(), gates)
    nonzero = gradient[0].abs().sum(dim=(1, 2)).nonzero().flatten().tolist()
    assert {divmod(position, pattern.width) for position in nonzero} == seen


def test_images_do_not_mix() -> None:
    pattern = PATTERNS["diagonal"]
    gates, weight, start_h, start_c = inputs_of(pattern)
    alone = scan(gates[:, :, 1:], weight, pattern, start_h, start_c)
    torch.testing.assert_close(alone, scan(gates, weight, pattern, start_h, start_c)[:, :, 1:])


def test_half_precision_gates_keep_the_cell_in_float32() -> None:
    # a thousand increments of 0.0004: in bfloat16, 0.25 + 0.0004 is 0.25
    pattern = row_pattern(1000, 1)
    gates = torch.tensor([math.log(0.0004), 30.0, 30.0, 30.0]).repeat(1, 1000, 1, 1).bfloat16()
    increment = float(gates[0, 0, 0, 0].sigmoid())
    h = scan(gates, torch.zeros(1, 3, 4), pattern, torch.zeros(1, 1), torch.zeros(1, 1))
    assert h.dtype == torch.bfloat16
    assert float(h[0, -1]) == pytest.approx(math.tanh(1000 * increment), rel=0.01)
