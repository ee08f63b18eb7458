"""The network of one pixel: a few gated layers from its features to the parameters of its mixture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.distributions.logistic_mixture import num_mixture_parameters
from dgm.nets.layer_list import LayerList

INPUT_GAIN = 1.5  # of the first layer's output
LOG_SCALES = (-2.5, 0.5)  # of the first and the last component at the start, relative to the expected error


class GatedLinear(nn.Linear):
    """v * sigmoid(g) of two linear maps. deviation: of the initial weights, times 1 / sqrt(inputs)."""

    def __init__(self, num_inputs: int, num_outputs: int, deviation: float) -> None:
        super().__init__(num_inputs, 2 * num_outputs)
        nn.init.normal_(self.weight, std=deviation * num_inputs**-0.5)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.glu(super().forward(input), dim=-1)


class PixelNetwork(nn.Module):
    """Parameters of the mixtures, relative to the linear prediction. The means have a linear part of their own.

    Shapes: features (P, F), the first `num_neighbours` of them the scaled neighbours -> (num_mixture_parameters, P):
    of each component (the last axis within a group) a weight, a mean and a log-scale per channel, a coefficient per
    pair of channels, as `dgm.distributions.logistic_mixture` orders them.
    """

    def __init__(
        self, num_features: int, num_neighbours: int, num_hidden: int, num_blocks: int, channels: int, num_mixtures: int
    ) -> None:
        super().__init__()
        self.means = slice(num_mixtures, (1 + channels) * num_mixtures)
        self.first = GatedLinear(num_features, num_hidden, 0.5)
        self.blocks = LayerList(GatedLinear(num_hidden, num_hidden, 1.0) for _ in range(num_blocks))
        self.head = nn.Linear(num_hidden, num_mixture_parameters(channels, num_mixtures))
        nn.init.normal_(self.head.weight, std=0.1 * num_hidden**-0.5)
        nn.init.zeros_(self.head.bias)
        log_scales = self.head.bias.data.view(-1, num_mixtures)[1 + channels : 1 + 2 * channels]
        log_scales.copy_(torch.linspace(*LOG_SCALES, num_mixtures))
        self.head_of_neighbours = nn.Parameter(torch.zeros(channels * num_mixtures, num_neighbours))

    def forward(self, features: Tensor) -> Tensor:
        h = INPUT_GAIN * self.first(features)
        for block in self.blocks:
            h = h + block(F.silu(h))
        outputs = torch.addmm(self.head.bias.unsqueeze(1), self.head.weight, h.T)
        num_neighbours = self.head_of_neighbours.shape[1]
        linear = self.head_of_neighbours @ features[:, :num_neighbours].T
        before, means, after = outputs.tensor_split((self.means.start, self.means.stop))
        return torch.cat([before, means + linear, after])
