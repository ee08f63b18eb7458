"""From features to mixtures of discretized logistics around the linear prediction, in units of its expected error."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.distributions.logistic_mixture import MIN_LOG_SCALE, num_mixture_parameters
from dgm.distributions.relative_mixture import RelativeMixture
from dgm.models.hourglass.local_inputs import Planes

MEAN_ERROR_OF_UNIT_LOGISTIC = 2 * math.log(2)
SPREAD_OF_FIRST, SPREAD = (-0.5, 0.5), (-2.0, 1.2)  # of the components' log-scales at first, by channel
GAIN = 0.1


class MixtureHead(nn.Module):
    """The means also follow the inputs linearly; a channel follows the earlier ones' residuals, at first as linear
    regression has it.

    coefficients: buffer of dgm.nets.local_prediction, (C, C). Shapes: features (..., features) and inputs (..., inputs)
    -> outputs (K, M, ...), K numbers of each of M components.
    """

    def __init__(self, features: int, num_inputs: int, channels: int, num_mixtures: int) -> None:
        super().__init__()
        self.channels, self.num_mixtures = channels, num_mixtures
        self.num_outputs = num_mixture_parameters(channels, 1)
        self.weight = nn.Parameter(
            torch.randn(self.num_outputs * num_mixtures, features) * (GAIN / math.sqrt(features))
        )
        self.bias = nn.Parameter(torch.zeros(self.num_outputs * num_mixtures))
        self.of_inputs = nn.Parameter(torch.zeros(channels * num_mixtures, num_inputs))

    @torch.no_grad()
    def start(self, planes: Planes, coefficients: Tensor) -> None:
        """Sets the log-scales around those of one logistic of each channel's mean error."""
        channels = self.channels
        residual, scale = planes.x - planes.here[..., :channels], planes.here[..., channels : channels + 1]
        errors = ((residual - residual @ coefficients.T).abs() / scale).mean(dim=(0, 1, 2))
        centres = (errors / MEAN_ERROR_OF_UNIT_LOGISTIC).log().clamp(min=MIN_LOG_SCALE)
        bias = self.bias.view(self.num_outputs, self.num_mixtures)
        for c, centre in enumerate(centres):
            spread = torch.linspace(*(SPREAD if c else SPREAD_OF_FIRST), self.num_mixtures)
            bias[1 + channels + c] = centre + spread.to(bias)

    def forward(self, features: Tensor, inputs: Tensor, whitening: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            outputs = F.linear(features.to(self.weight.dtype), self.weight, self.bias).movedim(-1, 0)
            direct = F.linear(inputs, self.of_inputs @ whitening).movedim(-1, 0)
        first, last = self.num_mixtures, (1 + self.channels) * self.num_mixtures
        outputs = torch.cat([outputs[:first], outputs[first:last] + direct, outputs[last:]])
        return outputs.unflatten(0, (self.num_outputs, -1))

    def mixture(self, outputs: Tensor, here: Tensor, coefficients: Tensor, levels: int) -> RelativeMixture:
        """The distributions of (...) pixels. Shapes: outputs (K, M, ...), here as in Planes (..., C + 3)."""
        here = here.movedim(-1, 0)
        prediction, scale = here[: self.channels], here[self.channels]
        return RelativeMixture.from_outputs(outputs, prediction, scale, coefficients, levels)
