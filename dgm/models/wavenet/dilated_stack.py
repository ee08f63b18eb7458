"""Dilated causal convolutions with gates, in (N, T, features) layout, and their one-step form.

A kernel of two taps is one matmul on [x_t, x_{t-d}]. No position is shifted here: the caller feeds the value of
t - 1 at position t (dgm.nets.sequence.shifted), after which every layer may read its own position.
Source: van den Oord et al. (2016), WaveNet, arXiv 1609.03499, sections 2.1 to 2.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dgm.nets.layer_list import LayerList


class DilatedLayer(nn.Module):
    """tanh * sigmoid of [x_t, x_{t-d}], then one matmul to the residual and the skip features.

    The last layer of a stack has no residual output, since nothing reads it.
    """

    def __init__(self, num_residual: int, num_skip: int, dilation: int, is_last: bool) -> None:
        super().__init__()
        self.dilation = dilation
        self.num_residual_out = 0 if is_last else num_residual
        self.gate = nn.Linear(2 * num_residual, 2 * num_residual)
        self.out = nn.Linear(num_residual, self.num_residual_out + num_skip)

    def activate(self, pair: Tensor) -> Tensor:
        """Residual and skip features side by side. Shapes: (..., 2 R) -> (..., R + S), or (..., S) if last."""
        value, gate = self.gate(pair).chunk(2, dim=-1)
        return self.out(torch.tanh(value) * torch.sigmoid(gate))

    def forward(self, x: Tensor, skip: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next layer's input and the sum of skips. Shapes: (N, T, R), (N, T, S) -> the same."""
        reach = min(self.dilation, x.shape[1])
        past = nn.functional.pad(x[:, : x.shape[1] - reach], (0, 0, reach, 0))
        out = self.activate(torch.cat([x, past], dim=-1))
        added = out[..., self.num_residual_out :]
        if self.num_residual_out:
            x = x + out[..., : self.num_residual_out]
        return x, added if skip is None else skip + added


class DilatedStack(nn.Module):
    """The sum of the skip features of all layers."""

    def __init__(self, num_residual: int, num_skip: int, dilations: Sequence[int]) -> None:
        super().__init__()
        last = len(dilations) - 1
        layers = [DilatedLayer(num_residual, num_skip, d, i == last) for i, d in enumerate(dilations)]
        self.layers = LayerList(layers)
        for layer in layers:  # so that the sum of skips has the same variance at every depth
            layer.out.weight.data[layer.num_residual_out :] /= math.sqrt(len(layers))

    @property
    def receptive_field(self) -> int:
        """Number of positions, its own included, that an output reads."""
        return 1 + sum(layer.dilation for layer in self.layers)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (N, T, R) -> (N, T, S)."""
        skip: Tensor | None = None
        for layer in self.layers:
            x, skip = layer(x, skip)
        assert skip is not None
        return skip


class DilatedStepper:
    """The stack one position at a time: a queue of the last d inputs of each layer, so no layer runs twice.

    Source: Paine et al. (2016), Fast WaveNet generation, arXiv 1611.09482.
    """

    def __init__(self, stack: DilatedStack, num_sequences: int) -> None:
        self.layers = stack.layers
        weight = self.layers[0].gate.weight
        num_residual = weight.shape[1] // 2
        self.queues = [weight.new_zeros(layer.dilation, num_sequences, num_residual) for layer in self.layers]
        self.skip = weight.new_zeros(num_sequences, self.layers[-1].out.weight.shape[0])
        self.pair = weight.new_zeros(num_sequences, 2 * num_residual)
        self.num_residual = num_residual
        self.position = 0

    def step(self, x: Tensor) -> Tensor:
        """The skip sum at the next position, valid until the next step. Shapes: (N, R) -> (N, S)."""
        now, past = self.pair[:, : self.num_residual], self.pair[:, self.num_residual :]
        now.copy_(x)
        self.skip.zero_()
        for layer, queue in zip(self.layers, self.queues, strict=True):
            slot = queue[self.position % layer.dilation]
            past.copy_(slot)
            slot.copy_(now)
            out = layer.activate(self.pair)
            self.skip += out[:, layer.num_residual_out :]
            if layer.num_residual_out:
                now += out[:, : layer.num_residual_out]
        self.position += 1
        return self.skip
