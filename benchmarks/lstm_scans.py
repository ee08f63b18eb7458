"""Seconds of the LSTM scans beside a plain loop over pixels, and of the cached samplers beside the naive one.

Run from the project's root: python -m benchmarks.lstm_scans. Both sides of a ratio come from the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dgm.model_api.ancestral import Conditionals, RecomputedConditionals
from dgm.model_api.contracts import AutoregressiveModel
from dgm.models.diagonal_bilstm import DiagonalBiLSTM, DiagonalBiLSTMConfig
from dgm.models.row_lstm.model import RowLSTM, RowLSTMConfig
from dgm.nets.lstm_scan import ScanPattern, diagonal_pattern, row_pattern, scan
from dgm.types import CIFAR10

NUM_IMAGES, NUM_HIDDEN, REPEATS = 8, 32, 3
NUM_NAIVE_STEPS = 5


def seconds_of(work: Callable[[], object]) -> float:
    """The fastest of a few runs, after one that warms up."""
    work()
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def scan_by_pixel(gates: Tensor, weight: Tensor, pattern: ScanPattern, start_h: Tensor, start_c: Tensor) -> Tensor:
    """What `scan` computes, by one position and one group at a time in raster order. Shapes: as `scan`."""
    groups, _, num_images, features = gates.shape
    width = features // pattern.num_gates
    zero = gates.new_zeros(num_images, width)
    result = []
    for group in range(groups):
        h: dict[tuple[int, int], Tensor] = {}
        c: dict[tuple[int, int], Tensor] = {}
        for column in range(pattern.width):
            h[-1, column], c[-1, column] = zero + start_h[group], zero + start_c[group]
        for row in range(pattern.height):
            for column in range(pattern.width):
                places = [(row + down, column + right) for down, right in pattern.context]
                context = torch.cat([h.get(place, zero) for place in places], dim=-1)
                pre = gates[group, row * pattern.width + column] + context @ weight[group]
                gate_in, gate_out, *forget, candidate = pre.split(width, dim=-1)
                cell = gate_in.sigmoid() * candidate.tanh()
                for gate, place in zip(forget, places, strict=False):
                    cell = cell + gate.sigmoid() * c.get(place, zero)
                c[row, column] = cell
                out = gate_out.sigmoid()
                h[row, column] = (out * cell).tanh() if pattern.is_product_squashed else out * cell.tanh()
        result.append(torch.stack([h[r, q] for r in range(pattern.height) for q in range(pattern.width)]))
    return torch.stack(result)


def time_scan(name: str, pattern: ScanPattern) -> None:
    """Forward and backward of one layer, one direction."""
    features = pattern.num_gates * NUM_HIDDEN
    gates = torch.randn(1, CIFAR10.num_pixels, NUM_IMAGES, features, requires_grad=True)
    weight = (0.1 * torch.randn(1, len(pattern.context) * NUM_HIDDEN, features)).requires_grad_()
    start = torch.zeros(1, NUM_HIDDEN)
    waves = seconds_of(lambda: scan(gates, weight, pattern, start, start).sum().backward())
    pixels = seconds_of(lambda: scan_by_pixel(gates, weight, pattern, start, start).sum().backward())
    print(f"{name:20} scan {1000 * waves:8.1f} ms   loop over pixels {1000 * pixels:8.1f} ms   {pixels / waves:6.1f}x")


@torch.no_grad()
def seconds_per_subpixel(conditionals: Conditionals, num_steps: int) -> float:
    """Mean over the first steps; each step asks for the probabilities and pushes a level."""
    levels = torch.zeros(NUM_IMAGES, dtype=torch.int64)
    began = time.perf_counter()
    for _ in range(num_steps):
        conditionals.log_pmf()
        conditionals.push(levels)
    return (time.perf_counter() - began) / num_steps


def time_sampler(name: str, model: AutoregressiveModel) -> None:
    """One sub-pixel of a few images: from cached activations, and by the whole network again."""
    cached = seconds_per_subpixel(model.conditionals(NUM_IMAGES), CIFAR10.num_subpixels)
    naive = seconds_per_subpixel(RecomputedConditionals(model, NUM_IMAGES), NUM_NAIVE_STEPS)
    print(
        f"{name:20} cached {1000 * cached:6.2f} ms   naive {1000 * naive:8.1f} ms a sub-pixel   {naive / cached:6.1f}x"
    )


def main() -> None:
    torch.manual_seed(0)
    time_scan("row", row_pattern(CIFAR10.height, CIFAR10.width))
    time_scan("diagonal", diagonal_pattern(CIFAR10.height, CIFAR10.width))
    time_scan("spatial (RIDE)", diagonal_pattern(CIFAR10.height, CIFAR10.width, 2, True))
    plain: dict[str, Any] = {"num_start_images": 0, "scored_fraction": 1.0}
    for layers, width, head in ((1, 16, 48), (4, 64, 256)):
        row_config = RowLSTMConfig(num_hidden=width, num_layers=layers, num_head_features=head, num_mixtures=0, **plain)
        diagonal_config = DiagonalBiLSTMConfig(num_hidden=width, num_layers=layers, num_head_features=head, **plain)
        time_sampler(f"RowLSTM {layers}x{width}", RowLSTM(CIFAR10, row_config))
        time_sampler(f"DiagonalBiLSTM {layers}x{width}", DiagonalBiLSTM(CIFAR10, diagonal_config))


if __name__ == "__main__":
    main()
