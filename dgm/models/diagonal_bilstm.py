"""Diagonal BiLSTM: a PixelRNN that computes a diagonal at a time and sees everything above and to the left.

Source: van den Oord, Kalchbrenner & Kavukcuoglu (2016), arXiv 1601.06759, section 3.2 and table 1.
Differs: residual connections only, without the optional skip connections from every layer to the output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dgm.families.pixel_rnn import (
    NUM_GATES,
    CachedPixelRNN,
    PixelRNN,
    by_part,
    channel_major,
    position_major,
    start_residual,
    state_weight,
    update_cell,
)
from dgm.families.started_softmax import StartedSoftmaxConfig
from dgm.model_api.ancestral import Conditionals
from dgm.nets.cached_conv import CachedPointwise, degree_slices
from dgm.nets.lstm_scan import diagonal_pattern, scan
from dgm.nets.masked_conv import MaskedConv2d, feature_degrees
from dgm.nets.softmax_head import SoftmaxHead
from dgm.types import ImageSpec


class DiagonalBiLSTMConfig(StartedSoftmaxConfig):
    """num_hidden: h of the paper; the residual stream has 2h. Published: 128, 12 layers, head of 1024."""

    num_hidden: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    num_head_features: int = Field(gt=0)


class DiagonalBiLSTMLayer(nn.Module):
    """One scan from the left and one from the right, each with its own weights.

    The map of the scan from the right moves down one row before it is added: at a pixel, it has read the pixels on
    the right of it. Shapes: (N, 2h, H, W) -> (N, 2h, H, W).
    """

    def __init__(self, spec: ImageSpec, num_hidden: int) -> None:
        super().__init__()
        self.pattern = diagonal_pattern(spec.height, spec.width)
        self.stream, self.hidden = feature_degrees(2 * num_hidden, spec), feature_degrees(num_hidden, spec)
        self.gates = feature_degrees(num_hidden, spec, NUM_GATES)
        self.input_to_state = MaskedConv2d(self.stream, self.gates.repeat(2), (1, 1), "B")
        self.state_to_state = state_weight(2, num_hidden)
        self.state_to_state_right = state_weight(2, num_hidden)
        self.up = MaskedConv2d(self.hidden, self.stream, (1, 1), "B")
        start_residual(self.input_to_state, self.up)

    def forward(self, x: Tensor) -> Tensor:
        from_left, from_right = self.input_to_state(x).chunk(2, dim=1)
        gates = torch.stack([position_major(from_left), position_major(from_right.flip(3))])
        weight = torch.stack([self.state_to_state, self.state_to_state_right])
        start = weight.new_zeros(2, len(self.hidden))
        h = scan(gates, weight, self.pattern, start, start)
        left, right = channel_major(h[0], x), channel_major(h[1], x).flip(3)
        return x + self.up(left + self.shift_down(right))

    @staticmethod
    def shift_down(right: Tensor) -> Tensor:
        """Row i becomes row i + 1; the first row is zero. Shapes: unchanged."""
        return F.pad(right, (0, 0, 1, 0))[:, :, :-1]


class DiagonalBiLSTM(PixelRNN[DiagonalBiLSTMConfig, DiagonalBiLSTMLayer]):
    """PixelRNN with Diagonal BiLSTM layers."""

    config_type = DiagonalBiLSTMConfig

    def __init__(self, spec: ImageSpec, config: DiagonalBiLSTMConfig) -> None:
        super().__init__(spec, config)
        stream = self.build(DiagonalBiLSTMLayer, config.num_hidden, config.num_layers)
        self.readout = SoftmaxHead(stream, config.num_head_features, spec, self.start is not None)

    @torch.no_grad()
    def conditionals(self, num_images: int) -> Conditionals:
        layers = [CachedDiagonalLayer(layer, num_images, self.spec) for layer in self.layers]
        return CachedPixelRNN(self, layers, num_images)


class CachedDiagonalLayer:
    """Incremental form of a DiagonalBiLSTMLayer: the left scan one sub-pixel at a time, the other once per row."""

    def __init__(self, layer: DiagonalBiLSTMLayer, num_images: int, spec: ImageSpec) -> None:
        device = layer.up.bias.device
        stream_order, order = layer.stream.argsort(stable=True).to(device), layer.hidden.argsort(stable=True).to(device)
        gate_order, parts = layer.gates.argsort(stable=True).to(device), by_part(order, NUM_GATES)
        weights, biases = layer.input_to_state.masked_weight()[:, :, 0, 0].chunk(2), layer.input_to_state.bias.chunk(2)
        self.from_left = CachedPointwise(weights[0], biases[0], layer.stream, layer.gates, num_images, spec)
        up = layer.up.masked_weight()[:, :, 0, 0]
        self.up = CachedPointwise(up, layer.up.bias, layer.hidden, layer.stream, num_images, spec)
        self.weight = layer.state_to_state.detach()[by_part(order, 2)][:, gate_order]
        self.right_input, self.right_bias = weights[1][parts][:, stream_order].T.contiguous(), biases[1][parts]
        self.right_weight = layer.state_to_state_right.detach()[by_part(order, 2)][:, parts]
        self.slices, self.stream_slices = degree_slices(layer.hidden, spec), degree_slices(layer.stream, spec)
        self.gate_slices, self.width = degree_slices(layer.gates, spec), spec.width
        self.x = up.new_zeros(num_images, spec.width, len(stream_order))
        self.h = up.new_zeros(num_images, spec.width + 1, len(order))  # column j at j + 1: the border is on the left
        self.c = up.new_zeros(num_images, len(order))
        self.right = up.new_zeros(num_images, spec.width + 1, len(order))  # column j at j: the border is on the right
        self.context = up.new_zeros(num_images, len(gate_order))
        self.is_first_row = True

    def start_row(self) -> None:
        self.c.zero_()
        if not self.is_first_row:
            self._scan_from_right()
        self.is_first_row = False

    def _scan_from_right(self) -> None:
        """Turns the states of the row before the finished row into those of the finished row."""
        gates = self.x @ self.right_input + self.right_bias
        c = torch.zeros_like(self.c)
        for column in reversed(range(self.width)):
            context = torch.cat([self.right[:, column + 1], self.right[:, column]], dim=1)
            update_cell(torch.addmm(gates[:, column], context, self.right_weight), c, self.right[:, column])

    def step(self, x: Tensor, column: int, degree: int) -> Tensor:
        if degree == 0:
            self.context = torch.cat([self.h[:, column], self.h[:, column + 1]], dim=1) @ self.weight
        hidden = self.slices[degree]
        self.x[:, column, self.stream_slices[degree]] = x
        self.from_left.slots[degree].copy_(x)
        gates = self.from_left.step(degree).add_(self.context[:, self.gate_slices[degree]])
        h = self.h[:, column + 1, hidden]
        update_cell(gates, self.c[:, hidden], h)
        torch.add(h, self.right[:, column, hidden], out=self.up.slots[degree])
        return self.up.step(degree).add_(x)
