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

    tanh(x) is 2 sigmoid(2x) - 1: the two halves of a gate are one sigmoid, the weights before and after it doubled.
    The skip features of all layers are one matrix product.
    Source: Paine et al. (2016), Fast WaveNet generation, arXiv 1611.09482.
    """

    @torch.no_grad()
    def __init__(self, stack: DilatedStack, num_sequences: int) -> None:
        layers, first = stack.layers, stack.layers[0].gate.weight
        num_residual = first.shape[1] // 2
        self.queues = [first.new_zeros(layer.dilation, num_sequences, num_residual) for layer in layers]
        self.pair = first.new_zeros(num_sequences, 2 * num_residual)
        self.now, self.past = self.pair.chunk(2, dim=1)
        self.gates = first.new_zeros(num_sequences, 2 * num_residual)
        self.value, self.gate = self.gates.chunk(2, dim=1)
        self.activations = first.new_zeros(num_sequences, num_residual * len(layers))
        self.activation_of_layer = self.activations.chunk(len(layers), dim=1)
        doubled = torch.cat([first.new_full((num_residual,), 2.0), first.new_ones(num_residual)])
        self.gate_weights = [(layer.gate.weight.T * doubled).contiguous() for layer in layers]
        self.gate_biases = [layer.gate.bias * doubled for layer in layers]
        num_out = [layer.num_residual_out for layer in layers]  # none of the last layer
        outs = [(2 * layer.out.weight.T, layer.out.bias) for layer in layers]
        self.residuals = [(w[:, :n].contiguous(), b[:n]) for (w, b), n in zip(outs[:-1], num_out, strict=False)]
        self.skip_weight = torch.cat([weight[:, n:] for (weight, _), n in zip(outs, num_out, strict=True)])
        self.skip_bias = torch.stack([bias[n:] for (_, bias), n in zip(outs, num_out, strict=True)]).sum(dim=0)
        self.position = 0

    @torch.no_grad()
    def step(self, x: Tensor) -> Tensor:
        """The skip sum at the next position. Shapes: (N, R) -> (N, S)."""
        self.now.copy_(x)
        for layer, queue in enumerate(self.queues):
            slot = queue[self.position % len(queue)]
            self.past.copy_(slot)
            slot.copy_(self.now)
            torch.addmm(self.gate_biases[layer], self.pair, self.gate_weights[layer], out=self.gates)
            self.gates.sigmoid_()
            activation = self.activation_of_layer[layer]
            torch.mul(self.value.sub_(0.5), self.gate, out=activation)
            if layer < len(self.residuals):
                weight, bias = self.residuals[layer]
                self.now.addmm_(activation, weight).add_(bias)
        self.position += 1
        return torch.addmm(self.skip_bias, self.activations, self.skip_weight)
