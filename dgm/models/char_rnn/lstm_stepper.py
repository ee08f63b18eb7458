"""nn.LSTM one position at a time, without a call of the recurrent layer: sampling takes thousands of steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgm.nets.lstm_cells import update_in_place


class LSTMStepper:
    """The state of a stack of LSTM layers, from zero. Source: Hochreiter & Schmidhuber (1997); Gers et al. (2000)."""

    @torch.no_grad()
    def __init__(self, lstm: nn.LSTM, num_sequences: int) -> None:
        parameters = dict(lstm.named_parameters())
        weight = parameters["weight_hh_l0"]
        self.num_hidden = lstm.hidden_size
        self.cells = [weight.new_zeros(num_sequences, lstm.hidden_size) for _ in range(lstm.num_layers)]
        self.inputs: list[Tensor] = []  # of each layer: what it reads, then its own last output
        self.weights: list[Tensor] = []
        self.biases: list[Tensor] = []
        for layer in range(lstm.num_layers):
            of_input, of_state = parameters[f"weight_ih_l{layer}"], parameters[f"weight_hh_l{layer}"]
            self.weights.append(torch.cat([of_input, of_state], dim=1).T.contiguous())
            self.biases.append(parameters[f"bias_ih_l{layer}"] + parameters[f"bias_hh_l{layer}"])
            self.inputs.append(weight.new_zeros(num_sequences, len(self.weights[-1])))
        self.gates = weight.new_zeros(num_sequences, 4 * lstm.hidden_size)

    @torch.no_grad()
    def step(self, x: Tensor) -> Tensor:
        """The last layer's output at the next position, valid until the next step. Shapes: (N, F) -> (N, hidden)."""
        for cell, pair, weight, bias in zip(self.cells, self.inputs, self.weights, self.biases, strict=True):
            state = pair[:, len(weight) - self.num_hidden :]
            pair[:, : len(weight) - self.num_hidden].copy_(x)
            torch.addmm(bias, pair, weight, out=self.gates)
            write, keep, candidate, show = self.gates.chunk(4, dim=1)  # the order of nn.LSTM
            update_in_place(write, keep, show, candidate, cell, state)
            x = state
        return x
