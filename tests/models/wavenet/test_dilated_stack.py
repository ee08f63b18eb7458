from __future__ import annotations

import torch
from torch import nn

from dgm.models.wavenet.dilated_stack import DilatedStack, DilatedStepper


def stack_of(dilations: list[int]) -> DilatedStack:
    torch.manual_seed(0)
    stack = DilatedStack(3, 4, dilations).double()
    for parameter in stack.parameters():
        nn.init.normal_(parameter)
    return stack


def test_output_reads_exactly_the_sums_of_dilations() -> None:
    stack, length = stack_of([1, 4, 9]), 20
    x = torch.randn(1, length, 3, dtype=torch.float64, requires_grad=True)
    stack(x)[0, 17].sum().backward()
    assert x.grad is not None
    lags = {17 - t for t in range(length) if x.grad[0, t].abs().max() > 0}
    assert lags == {a + b + c for a in (0, 1) for b in (0, 4) for c in (0, 9)}
    assert stack.receptive_field == 1 + max(lags)


def test_one_step_at_a_time_gives_the_same_features() -> None:
    stack = stack_of([1, 3, 50, 2])  # one queue longer than the sequence
    x = torch.randn(2, 12, 3, dtype=torch.float64)
    with torch.no_grad():
        expected, stepper = stack(x), DilatedStepper(stack, 2)
        for t in range(12):
            torch.testing.assert_close(stepper.step(x[:, t]), expected[:, t], rtol=0, atol=1e-11)


def test_every_parameter_is_used() -> None:
    stack = stack_of([1, 2])
    stack(torch.randn(2, 6, 3, dtype=torch.float64)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in stack.parameters())
