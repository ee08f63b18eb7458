"""From features to mixtures of discretized logistics around the linear prediction, in units of its expected error."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.distributions.logistic_mixture import MIN_LOG_SCALE, LogisticMixture, num_mixture_parameters
from dgm.distributions.mixture_log_prob import mixture_log_prob
from dgm.models.hourglass.local_inputs import Planes

MEAN_ERROR_OF_UNIT_LOGISTIC = 2 * math.log(2)
SPREAD_OF_FIRST, SPREAD = (-0.5, 0.5), (-2.0, 1.2)  # of the components' log-scales at first, by channel
MAX_LOG_SCALE = 10.0
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
        pairs = [(c, earlier) for c in range(channels) for earlier in range(c)]
        self.pairs = nn.Buffer(torch.tensor(pairs, dtype=torch.long).view(-1, 2), persistent=False)

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

    def log_prob(self, outputs: Tensor, planes: Planes, coefficients: Tensor, levels: int) -> Tensor:
        """Natural-log probability of each pixel. Shapes: outputs of (N, H, W) pixels -> (N, H, W)."""
        logits, means, log_scales, slopes = self._parts(outputs, planes.here, coefficients)
        x, predicted = planes.x.movedim(-1, 0), planes.here[..., : self.channels].movedim(-1, 0)
        means = self._shifted(means, slopes, (x - predicted).unsqueeze(1))
        arguments = (x.flatten(1), logits.flatten(1), means.flatten(2), log_scales.flatten(2))
        return mixture_log_prob(*arguments, levels).view(planes.x.shape[:-1])

    def mixture(self, outputs: Tensor, here: Tensor, coefficients: Tensor, levels: int) -> LogisticMixture:
        """The distributions of (...) pixels. Shapes: outputs (K, M, ...), here as in Planes (..., C + 3)."""
        logits, means, log_scales, slopes = self._parts(outputs, here, coefficients)
        means = self._shifted(means, slopes, -here[..., : self.channels].movedim(-1, 0).unsqueeze(1))
        means, log_scales, slopes = (part.movedim((0, 1), (-2, -1)) for part in (means, log_scales, slopes))
        return LogisticMixture(torch.log_softmax(logits, dim=0).movedim(0, -1), means, log_scales, slopes, levels)

    def _parts(self, outputs: Tensor, here: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (M, ...), means without the earlier channels and log-scales (C, M, ...), slopes (pairs, M, ...)."""
        here = here.movedim(-1, 0)
        predicted, scale = here[: self.channels].unsqueeze(1), here[self.channels]
        logits, means, log_scales, slopes = outputs.split([1, self.channels, self.channels, len(self.pairs)])
        log_scales = (log_scales + scale.log()).clamp(MIN_LOG_SCALE, MAX_LOG_SCALE)
        start = coefficients[self.pairs[:, 0], self.pairs[:, 1]].view(-1, *(1 for _ in slopes.shape[1:]))
        return logits[0], torch.addcmul(predicted, scale, means), log_scales, slopes + start

    def _shifted(self, means: Tensor, slopes: Tensor, earlier: Tensor) -> Tensor:
        """Means plus what the earlier channels add. Shapes: (C, M, ...), (pairs, M, ...), (C, 1, ...)."""
        shifted, first = [means[0]], 0
        for c in range(1, self.channels):
            shifted.append(means[c] + (slopes[first : first + c] * earlier[:c]).sum(dim=0))
            first += c
        return torch.stack(shifted)
