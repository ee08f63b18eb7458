"""One step of a long short-term memory, on vectors or on maps; all gates come from one product.

Source: Hochreiter & Schmidhuber (1997), "Long short-term memory"; Shi et al. (2015), arXiv 1506.04214, section 3.1.
Differs: no peepholes; one bias per gate, that of the forget gate 1 at first; the first state is learned.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn

from dgm.nets.zero_layers import bias_of

LSTMState: TypeAlias = tuple[Tensor, Tensor]  # what the cell shows, what it keeps


class LSTMCell(nn.Module):
    """Shapes: inputs (N, num_inputs), state twice (N, num_hidden)."""

    def __init__(self, num_inputs: int, num_hidden: int) -> None:
        super().__init__()
        self.gates = nn.Linear(num_inputs + num_hidden, 4 * num_hidden)
        self.first = nn.Parameter(torch.zeros(2, num_hidden))
        open_forget_gates(bias_of(self.gates))

    def first_state(self, num_images: int) -> LSTMState:
        shown, kept = self.first.unsqueeze(1).expand(-1, num_images, -1)
        return torch.tanh(shown), kept

    def forward(self, inputs: list[Tensor], state: LSTMState) -> LSTMState:
        return gated(self.gates(torch.cat([*inputs, state[0]], dim=1)), state[1])


class ConvLSTMCell(nn.Module):
    """Shapes: inputs (N, num_inputs, h, w), state twice (N, num_hidden, h, w)."""

    def __init__(self, num_inputs: int, num_hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(num_inputs + num_hidden, 4 * num_hidden, kernel_size, padding=kernel_size // 2)
        self.first = nn.Parameter(torch.zeros(2, num_hidden, 1, 1))
        open_forget_gates(bias_of(self.gates))

    def first_state(self, num_images: int, height: int, width: int) -> LSTMState:
        shown, kept = self.first.unsqueeze(1).expand(-1, num_images, -1, height, width)
        return torch.tanh(shown), kept

    def forward(self, inputs: list[Tensor], state: LSTMState) -> LSTMState:
        return gated(self.gates(torch.cat([*inputs, state[0]], dim=1)), state[1])


def gated(gates: Tensor, kept: Tensor) -> LSTMState:
    """The next state. Shapes: gates (N, 4 * hidden, ...) in the order input, forget, output, candidate."""
    write, keep, show, candidate = gates.chunk(4, dim=1)
    kept = torch.sigmoid(keep) * kept + torch.sigmoid(write) * torch.tanh(candidate)
    return torch.sigmoid(show) * torch.tanh(kept), kept


def update_in_place(write: Tensor, keep: Tensor, show: Tensor, candidate: Tensor, kept: Tensor, shown: Tensor) -> None:
    """The same step without gradient or new memory: writes the next state into `kept` and `shown`.

    The four parts of the gates come before their sigmoid or tanh, and are overwritten. Shapes: all (N, hidden).
    """
    kept.mul_(keep.sigmoid_()).addcmul_(write.sigmoid_(), candidate.tanh_())
    torch.mul(show.sigmoid_(), kept.tanh(), out=shown)


def open_forget_gates(bias: Tensor) -> None:
    """Fills a bias of the four gates in place: zero, and one for the forget gate."""
    with torch.no_grad():
        bias.zero_()
        bias.chunk(4)[1].fill_(1.0)
