"""Two-dimensional LSTM scans: a whole row, or a whole diagonal, of an image is computed at a time.

The input-to-state part of every gate arrives for all positions at once. What is left is the state-to-state part: one
matrix product per wave, where a wave is a set of positions that do not depend on each other. Maps are position-major,
(H * W, N, features), and the states lie on a padded map, so that both the positions of a wave and those which it
reads are plain strided slices: there is no skewing, and dead cells of a skewed map are never computed.

Source: van den Oord, Kalchbrenner & Kavukcuoglu (2016), arXiv 1601.06759, sections 3.1 and 3.2 (row and diagonal
LSTM); Theis & Bethge (2015), arXiv 1506.03478, section 2.3 (the spatial LSTM with one forget gate per neighbour).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# the padded map of the states: one row above, one column on either side
ABOVE, LEFT, RIGHT = 1, 1, 1


@dataclass(frozen=True)
class ScanPattern:
    """What an LSTM cell of the scan reads, and which cells are computed together.

    context: offsets (rows, columns) of the cells whose h is read. carried: how many of them, from the first on, pass
    their c on, each through its own forget gate. waves: for each wave its slice of the H * W map and, for the padded
    map, (start, step, count). is_product_squashed: h = tanh(o * c) instead of o * tanh(c).
    """

    height: int
    width: int
    context: tuple[tuple[int, int], ...]
    carried: int
    waves: tuple[tuple[slice, tuple[int, int, int]], ...]
    is_product_squashed: bool = False

    @property
    def num_gates(self) -> int:
        """Input, output, one forget gate for each carried cell, candidate: the order of the gates' features."""
        return 3 + self.carried

    @property
    def padded_width(self) -> int:
        return LEFT + self.width + RIGHT

    @property
    def padded_size(self) -> int:
        return (ABOVE + self.height) * self.padded_width

    def offsets(self) -> tuple[int, ...]:
        """The context as differences of flat indices of the padded map."""
        return tuple(rows * self.padded_width + columns for rows, columns in self.context)


@lru_cache(maxsize=64)
def row_pattern(height: int, width: int) -> ScanPattern:
    """A wave is a row; a cell reads three cells of the row above and carries on the c of the one right above."""
    padded_width = LEFT + width + RIGHT
    waves = tuple(
        (slice(row * width, (row + 1) * width), ((ABOVE + row) * padded_width + LEFT, 1, width))
        for row in range(height)
    )
    return ScanPattern(height, width, ((-1, 0), (-1, -1), (-1, 1)), 1, waves)


@lru_cache(maxsize=64)
def diagonal_pattern(height: int, width: int, carried: int = 1, is_product_squashed: bool = False) -> ScanPattern:
    """A wave is a diagonal, row + column = constant; a cell reads the cells on its left and above it."""
    padded_width = LEFT + width + RIGHT
    waves = []
    for diagonal in range(height + width - 1):
        first, last = max(0, diagonal - width + 1), min(height - 1, diagonal)
        count, step = last - first + 1, max(width - 1, 1)
        start = first * width + diagonal - first
        padded_start = (ABOVE + first) * padded_width + LEFT + diagonal - first
        waves.append((slice(start, start + (count - 1) * step + 1, step), (padded_start, padded_width - 1, count)))
    return ScanPattern(height, width, ((0, -1), (-1, 0)), carried, tuple(waves), is_product_squashed)


def scan(gates: Tensor, weight: Tensor, pattern: ScanPattern, start_h: Tensor, start_c: Tensor) -> Tensor:
    """The hidden state of every position, for G independent scans at once.

    The states start from `start_h` and `start_c` above the first row, and from zero on the left and right.
    Shapes: gates (G, H * W, N, num_gates * h), input-to-state with bias, ordered [input, output, forget..., candidate];
    weight (G, len(context) * h, num_gates * h); start_h, start_c (G, h) -> (G, H * W, N, h), of the dtype of `gates`.
    """
    return _Scan.apply(gates, weight.to(gates.dtype), start_h, start_c, pattern)  # type: ignore[return-value]  # torch does not say what `apply` returns


class _Scan(torch.autograd.Function):
    """Keeps the activated gates, h and c; the gradient of the weight is one product over all positions at the end."""

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, weight: Tensor, start_h: Tensor, start_c: Tensor, pattern: ScanPattern
    ) -> Tensor:
        groups, _, num_images, features = gates.shape
        width = features // pattern.num_gates
        h = gates.new_zeros(groups, pattern.padded_size, num_images, width)
        c = torch.zeros_like(h, dtype=torch.float32 if gates.dtype.itemsize < 4 else gates.dtype)
        h[:, LEFT : LEFT + pattern.width] = start_h[:, None, None].to(h.dtype)
        c[:, LEFT : LEFT + pattern.width] = start_c[:, None, None].to(c.dtype)
        activations = []
        with torch.autocast(gates.device.type, enabled=False):
            for positions, wave in pattern.waves:
                context = torch.cat([_shifted(h, wave, offset) for offset in pattern.offsets()], dim=-1)
                inputs = gates[:, positions].reshape(groups, -1, features)
                activated = torch.baddbmm(inputs, context.view(groups, inputs.shape[1], -1), weight)
                activated = activated.view(groups, -1, num_images, features)
                activated[..., :-width].sigmoid_()
                activated[..., -width:].tanh_()
                activations.append(activated)
                cell, hidden = _cell(activated.to(c.dtype), _carried(c, wave, pattern), pattern)
                _shifted(c, wave, 0).copy_(cell)
                _shifted(h, wave, 0).copy_(hidden)
        ctx.save_for_backward(weight, h, c, *activations)
        ctx.pattern = pattern
        return _interior(h, pattern).flatten(1, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        weight, h, c, *activations = ctx.saved_tensors
        pattern: ScanPattern = ctx.pattern
        width = h.shape[-1]
        dh, dc = torch.zeros_like(h, dtype=c.dtype), torch.zeros_like(c)
        _interior(dh, pattern).copy_(upstream[0].unflatten(1, (pattern.height, pattern.width)))
        dgates = h.new_empty(h.shape[0], pattern.height * pattern.width, h.shape[2], weight.shape[-1])
        transposed = weight.transpose(1, 2)
        with torch.autocast(h.device.type, enabled=False):
            for (positions, wave), activated in zip(reversed(pattern.waves), reversed(activations), strict=True):
                states = (_shifted(h, wave, 0), _shifted(c, wave, 0), _shifted(dh, wave, 0), _shifted(dc, wave, 0))
                gate_gradient = _cell_backward(
                    activated.to(c.dtype), _carried(c, wave, pattern), _carried(dc, wave, pattern), states, pattern
                ).to(h.dtype)
                dgates[:, positions] = gate_gradient
                dcontext = torch.bmm(gate_gradient.flatten(1, 2), transposed).view(*gate_gradient.shape[:3], -1)
                for offset, part in zip(pattern.offsets(), dcontext.split(width, dim=-1), strict=True):
                    _shifted(dh, wave, offset).add_(part)
            dweight = torch.cat(
                [torch.bmm(_neighbours(h, pattern, k).transpose(1, 2), dgates.flatten(1, 2))
                 for k in range(len(pattern.context))],
                dim=1,
            )  # fmt: skip
        above = slice(LEFT, LEFT + pattern.width)
        return dgates, dweight, dh[:, above].sum(dim=(1, 2)), dc[:, above].sum(dim=(1, 2)), None


def _cell(activated: Tensor, carried: list[Tensor], pattern: ScanPattern) -> tuple[Tensor, Tensor]:
    gate_in, gate_out, *forget, candidate = activated.chunk(pattern.num_gates, dim=-1)
    c = gate_in * candidate
    for gate, before in zip(forget, carried, strict=True):
        c = torch.addcmul(c, gate, before)
    return c, torch.tanh(gate_out * c) if pattern.is_product_squashed else gate_out * torch.tanh(c)


def _cell_backward(
    activated: Tensor, carried: list[Tensor], dcarried: list[Tensor], states: tuple[Tensor, ...], pattern: ScanPattern
) -> Tensor:
    """The gradient of the pre-activations; adds that of the carried cells to `dcarried`."""
    gate_in, gate_out, *forget, candidate = activated.chunk(pattern.num_gates, dim=-1)
    h, c, dh, dc = states
    if pattern.is_product_squashed:
        inner = dh * (1 - h * h)
        dgate_out, dc = inner * c, torch.addcmul(dc, inner, gate_out)
    else:
        squashed = torch.tanh(c)
        dgate_out, dc = dh * squashed, torch.addcmul(dc, dh * gate_out, 1 - squashed * squashed)
    sigmoids = activated[..., : -c.shape[-1]]
    upstream = [dc * candidate, dgate_out]
    for gate, before, dbefore in zip(forget, carried, dcarried, strict=True):
        upstream.append(dc * before)
        dbefore.addcmul_(dc, gate)
    slopes = torch.cat([sigmoids * (1 - sigmoids), 1 - candidate * candidate], dim=-1)
    return slopes.mul_(torch.cat([*upstream, dc * gate_in], dim=-1))


def _shifted(padded: Tensor, wave: tuple[int, int, int], offset: int) -> Tensor:
    """The cells of a wave, or those at an offset from them: a view. Shapes: (G, padded, N, h) -> (G, count, N, h)."""
    start, step, count = wave
    start += offset
    return padded[:, start : start + (count - 1) * step + 1 : step]


def _carried(padded: Tensor, wave: tuple[int, int, int], pattern: ScanPattern) -> list[Tensor]:
    return [_shifted(padded, wave, offset) for offset in pattern.offsets()[: pattern.carried]]


def _interior(padded: Tensor, pattern: ScanPattern, rows: int = 0, columns: int = 0) -> Tensor:
    """The map without its padding, moved by some rows and columns: a view. Shapes: -> (G, H, W, N, h)."""
    grid = padded.unflatten(1, (ABOVE + pattern.height, pattern.padded_width))
    top, left = ABOVE + rows, LEFT + columns
    return grid[:, top : top + pattern.height, left : left + pattern.width]


def _neighbours(h: Tensor, pattern: ScanPattern, k: int) -> Tensor:
    """What every position read as its k-th context. Shapes: -> (G, H * W * N, h)."""
    return _interior(h, pattern, *pattern.context[k]).flatten(1, 3)
