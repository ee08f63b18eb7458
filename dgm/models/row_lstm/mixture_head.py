"""A head that gives every sub-pixel a mixture of discretized logistics, on the features that a softmax head would read.

It makes "softmax or mixture?" a question of one setting: body, masks and hidden layers are the same.
Source: van den Oord et al. (2016), arXiv 1601.06759, section 5.3, which compares a softmax with a mixture density on
the Row LSTM; Salimans et al. (2017), arXiv 1701.05517, section 2.1, for the discretized logistic.
Differs: the first paper's mixture was of conditional Gaussian scale mixtures, a density.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.distributions.logistic_mixture import LogisticMixture, initial_mixture_parameters, num_mixture_parameters
from dgm.nets.masked_conv import degree_mask, input_degrees
from dgm.nets.neighbour_regression import NeighbourStepper
from dgm.nets.pixel_head import CachedPixelHead, PixelHead
from dgm.types import ImageSpec


class MixtureHead(PixelHead):
    """Hidden layers, then weights, means and log-scales of each sub-pixel's components.

    Before training every sub-pixel has the same mixture, its components spread over the levels.
    """

    def __init__(self, in_degrees: Tensor, num_features: int, spec: ImageSpec, num_mixtures: int) -> None:
        super().__init__(in_degrees, num_features, spec)
        start = initial_mixture_parameters(1, num_mixtures)  # weights, means, log-scales
        start[num_mixtures : 2 * num_mixtures] = (2 * torch.arange(num_mixtures) + 1) / num_mixtures - 1
        self.head_weight = nn.Parameter(
            torch.zeros(spec.channels, num_mixture_parameters(1, num_mixtures), num_features)
        )
        self.head_bias = nn.Parameter(start.repeat(spec.channels, 1))
        mask = degree_mask(self.degrees, input_degrees(spec), "B")
        self.mask = nn.Buffer(mask.float().unsqueeze(1), persistent=False)

    def masked_weight(self) -> Tensor:
        """Shapes: -> (C, parameters, num_features)."""
        return self.head_weight * self.mask

    def idle_weights(self) -> dict[str, Tensor]:
        """What the mask forbids."""
        return {"head_weight": (self.mask == 0).expand_as(self.head_weight)}

    def mixture(self, features: Tensor) -> LogisticMixture:
        """One mixture per sub-pixel. Shapes: (N, I, H, W) -> parameters of (N, H, W, C) mixtures of one channel."""
        hidden = self.hidden(features).permute(0, 2, 3, 1)
        parameters = F.linear(hidden, self.masked_weight().flatten(0, 1), self.head_bias.flatten())
        return LogisticMixture.from_parameters(parameters.unflatten(-1, self.head_bias.shape), 1, self.spec.levels)

    def nats_of_pixels(self, features: Tensor, values: Tensor) -> Tensor:
        """log-probability of some pixels of each image. Shapes: (N, Q, I), (N, Q, C) -> (N,) float64."""
        mixture = self.mixture(features.transpose(1, 2).unsqueeze(3))
        return mixture.log_prob(values.unsqueeze(2).unsqueeze(4)).flatten(1).sum(dim=1, dtype=torch.float64)

    def logits(self, features: Tensor) -> Tensor:
        mixture = self.mixture(features)
        nothing_earlier = mixture.log_weights.new_zeros((*mixture.log_weights.shape[:-1], 1))
        return mixture.log_pmf(nothing_earlier).squeeze(-2)

    def cached(self, num_images: int, start: NeighbourStepper | None) -> CachedMixtureHead:
        return CachedMixtureHead(self, num_images)


class CachedMixtureHead(CachedPixelHead):
    """Incremental form of a MixtureHead."""

    def __init__(self, head: MixtureHead, num_images: int) -> None:
        self.levels = head.spec.levels
        degrees = input_degrees(head.spec).repeat_interleave(head.head_bias.shape[1])
        super().__init__(head, head.masked_weight().flatten(0, 1), head.head_bias.flatten(), degrees, num_images)

    def log_pmf(self, features: Tensor, degree: int) -> Tensor:
        parameters = self.outputs(features, degree)
        mixture = LogisticMixture.from_parameters(parameters, 1, self.levels)
        return mixture.log_pmf(parameters.new_zeros(len(parameters), 1)).squeeze(1)
