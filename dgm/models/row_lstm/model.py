"""Row LSTM: a PixelRNN that computes a row at a time and sees a triangle above each pixel.

Source: van den Oord, Kalchbrenner & Kavukcuoglu (2016), arXiv 1601.06759, section 3.1 and table 1.
Differs: residual connections only, without the optional skip connections from every layer to the output.
"""

from __future__ import annotations

import torch
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
from dgm.families.started_softmax import StartedSoftmaxConfig, chosen
from dgm.model_api.ancestral import Conditionals
from dgm.models.row_lstm.mixture_head import MixtureHead
from dgm.nets.cached_conv import CachedConv, CachedPointwise, degree_slices
from dgm.nets.lstm_scan import row_pattern, scan
from dgm.nets.masked_conv import MaskedConv2d, feature_degrees
from dgm.nets.softmax_head import SoftmaxHead
from dgm.types import Images, ImageSpec


class RowLSTMConfig(StartedSoftmaxConfig):
    """num_hidden: h of the paper; the residual stream has 2h. Published: 128, 12 layers, head of 1024.

    num_mixtures: components of each sub-pixel's mixture of discretized logistics, in place of the softmax; 0 is the
    published softmax. The paper asks which is better (section 5.3); `dvc exp run` answers it here, see the README.
    The start is one of a softmax: a mixture has none, whatever `num_start_images` says.
    """

    num_hidden: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    num_head_features: int = Field(gt=0)
    num_mixtures: int = Field(ge=0)


class RowLSTMLayer(nn.Module):
    """A kernel of width 3 from the inputs of a row, masked, and one from the states of the row above, not masked.

    Shapes: (N, 2h, H, W) -> (N, 2h, H, W).
    """

    def __init__(self, spec: ImageSpec, num_hidden: int) -> None:
        super().__init__()
        self.pattern = row_pattern(spec.height, spec.width)
        self.stream, self.hidden = feature_degrees(2 * num_hidden, spec), feature_degrees(num_hidden, spec)
        self.gates = feature_degrees(num_hidden, spec, NUM_GATES)
        self.input_to_state = MaskedConv2d(self.stream, self.gates, (1, 3), "B")
        self.state_to_state = state_weight(3, num_hidden)
        self.start_h = nn.Parameter(torch.zeros(num_hidden))
        self.start_c = nn.Parameter(torch.zeros(num_hidden))
        self.up = MaskedConv2d(self.hidden, self.stream, (1, 1), "B")
        start_residual(self.input_to_state, self.up)

    def forward(self, x: Tensor) -> Tensor:
        gates = position_major(self.input_to_state(x)).unsqueeze(0)
        start_h, start_c = self.start_h.unsqueeze(0), self.start_c.unsqueeze(0)
        h = scan(gates, self.state_to_state.unsqueeze(0), self.pattern, start_h, start_c)
        return x + self.up(channel_major(h[0], x))


class RowLSTM(PixelRNN[RowLSTMConfig, RowLSTMLayer]):
    """PixelRNN with Row LSTM layers."""

    config_type = RowLSTMConfig

    def __init__(self, spec: ImageSpec, config: RowLSTMConfig) -> None:
        super().__init__(spec, config)
        if config.num_mixtures:
            self.start = None
        stream = self.build(RowLSTMLayer, config.num_hidden, config.num_layers)
        if config.num_mixtures:
            self.readout = MixtureHead(stream, config.num_head_features, spec, config.num_mixtures)
        else:
            self.readout = SoftmaxHead(stream, config.num_head_features, spec, self.start is not None)

    def nats_at(self, images: Images, pixels: Tensor | None) -> Tensor:
        if not isinstance(self.readout, MixtureHead):
            return super().nats_at(images, pixels)
        values = chosen(images.flatten(2).transpose(1, 2), pixels)
        return self.readout.nats_of_pixels(chosen(self.pixel_features(images), pixels), values)

    @torch.no_grad()
    def conditionals(self, num_images: int) -> Conditionals:
        layers = [CachedRowLSTMLayer(layer, num_images, self.spec) for layer in self.layers]
        return CachedPixelRNN(self, layers, num_images)


class CachedRowLSTMLayer:
    """Incremental form of a RowLSTMLayer: state-to-state once per row, the rest once per sub-pixel."""

    def __init__(self, layer: RowLSTMLayer, num_images: int, spec: ImageSpec) -> None:
        order, gate_order = layer.hidden.argsort(stable=True), layer.gates.argsort(stable=True)
        order, gate_order = order.to(layer.start_h.device), gate_order.to(layer.start_h.device)
        self.conv = CachedConv(layer.input_to_state, layer.stream, layer.gates, num_images, spec)
        up = layer.up.masked_weight()[:, :, 0, 0]
        self.up = CachedPointwise(up, layer.up.bias, layer.hidden, layer.stream, num_images, spec)
        self.weight = layer.state_to_state.detach()[by_part(order, 3)][:, gate_order]
        self.slices = degree_slices(layer.hidden, spec)
        self.h = up.new_zeros(num_images, spec.width + 2, len(order))
        self.h[:, 1:-1] = layer.start_h.detach()[order]
        self.c = layer.start_c.detach()[order].expand(num_images, spec.width, -1).clone()

    def start_row(self) -> None:
        # the offsets of the scan's pattern: right above, above on the left, above on the right
        above = torch.cat([self.h[:, 1:-1], self.h[:, :-2], self.h[:, 2:]], dim=-1)
        self.conv.start_row(above @ self.weight)

    def step(self, x: Tensor, column: int, degree: int) -> Tensor:
        self.conv.slot(column, degree).copy_(x)
        c, h = self.c[:, column, self.slices[degree]], self.up.slots[degree]
        update_cell(self.conv.step(column, degree), c, h)
        self.h[:, column + 1, self.slices[degree]] = h
        return self.up.step(degree).add_(x)
