from __future__ import annotations

import pytest
import torch
from torch import nn

from dgm.models.char_rnn.lstm_stepper import LSTMStepper


@pytest.mark.parametrize("num_layers", [1, 3])
def test_steps_give_the_outputs_of_the_recurrent_layer(num_layers: int) -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(4, 5, num_layers, batch_first=True).double()
    x = torch.randn(3, 9, 4, dtype=torch.float64)
    with torch.no_grad():
        expected, _ = lstm(x)
        stepper = LSTMStepper(lstm, 3)
        for t in range(9):
            torch.testing.assert_close(stepper.step(x[:, t]), expected[:, t], rtol=0, atol=1e-12)
