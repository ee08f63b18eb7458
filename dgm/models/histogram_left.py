"""Histogram of each sub-pixel given one neighbour in the same channel: the simplest spatial dependence.

The neighbour is the one to the left; in the first column, which has none, the one above (its own table); the first
pixel has the channel's marginal. The counts of a pair of levels are smoothed towards the marginal by pseudo-counts (a
Dirichlet prior, as in MacKay & Peto 1995, "A hierarchical Dirichlet language model"), whose number is chosen on
held-out training images.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.model_api.ancestral import Conditionals
from dgm.model_api.contracts import AutoregressiveModel, Fitted
from dgm.types import Images, ImageSpec

LEFT, ABOVE = 0, 1


class HistogramLeftConfig(Config):
    """candidate_pseudo_counts: strengths of the smoothing to choose from, on the last validation_fraction of images."""

    candidate_pseudo_counts: list[float] = Field(min_length=1)
    validation_fraction: float = Field(gt=0, lt=1)


class HistogramLeft(Fitted[HistogramLeftConfig], AutoregressiveModel[HistogramLeftConfig]):
    """P(v | neighbour) = (n(neighbour, v) + a m(v)) / (n(neighbour) + a), m the channel's marginal."""

    config_type = HistogramLeftConfig

    def __init__(self, spec: ImageSpec, config: HistogramLeftConfig) -> None:
        super().__init__(spec, config)
        if min(config.candidate_pseudo_counts) <= 0:
            raise ValueError("candidate_pseudo_counts must be positive")
        uniform = torch.full((2, spec.channels, spec.levels, spec.levels), 1 / spec.levels, dtype=torch.float64).log()
        self.marginal_log_table = nn.Buffer(uniform[0, :, 0].clone())
        self.log_table = nn.Buffer(uniform)
        self.pseudo_count = nn.Buffer(torch.zeros(2, dtype=torch.float64))

    def start(self, images: Images, generator: torch.Generator) -> None:
        num_held_out = max(1, round(len(images) * self.config.validation_fraction))
        marginal_fit, pairs_fit = self._counts(images[:-num_held_out])
        _, pairs_held_out = self._counts(images[-num_held_out:])
        marginal, pairs = self._counts(images)
        for side in (LEFT, ABOVE):
            nats = [
                float((pairs_held_out[side] * smoothed_conditional(pairs_fit[side], marginal_fit, a).log()).sum())
                for a in self.config.candidate_pseudo_counts
            ]
            best = self.config.candidate_pseudo_counts[nats.index(max(nats))]
            self.pseudo_count[side] = best
            self.log_table[side] = smoothed_conditional(pairs[side], marginal, best).log()
        self.marginal_log_table.copy_((marginal / marginal.sum(dim=1, keepdim=True)).log())

    def _counts(self, images: Images) -> tuple[Tensor, Tensor]:
        """Counts of levels, half a count added, and of (neighbour, level) pairs. Shapes: -> (C, K), (2, C, K, K)."""
        channels, levels = self.spec.channels, self.spec.levels
        marginal = torch.full((channels, levels), 0.5, dtype=torch.float64, device=images.device)
        pairs = torch.zeros(2, channels, levels * levels, dtype=torch.float64, device=images.device)
        for chunk in images.split(1000):
            for c in range(channels):
                values = chunk[:, c].long()
                marginal[c] += values.flatten().bincount(minlength=levels)
                left = values[..., :-1] * levels + values[..., 1:]
                above = values[:, :-1, 0] * levels + values[:, 1:, 0]
                pairs[LEFT, c] += left.flatten().bincount(minlength=levels * levels)
                pairs[ABOVE, c] += above.flatten().bincount(minlength=levels * levels)
        return marginal, pairs.view(2, channels, levels, levels)

    def log_prob(self, images: Images) -> Tensor:
        values = images.long()
        channels = torch.arange(self.spec.channels, device=images.device).view(1, -1, 1)
        first = self.marginal_log_table[channels[..., 0], values[:, :, 0, 0]].sum(dim=1)
        column = self.log_table[ABOVE, channels, values[:, :, :-1, 0], values[:, :, 1:, 0]].sum(dim=(1, 2))
        rest = self.log_table[LEFT, channels[..., None], values[..., :-1], values[..., 1:]].sum(dim=(1, 2, 3))
        return first + column + rest

    def log_pmf(self, images: Images) -> Tensor:
        values = images.long()
        channels = torch.arange(self.spec.channels, device=images.device).view(1, -1, 1)
        first = self.marginal_log_table[:, None, None, :].expand(len(images), -1, -1, -1, -1)
        column = self.log_table[ABOVE, channels, values[:, :, :-1, 0]].unsqueeze(3)
        rest = self.log_table[LEFT, channels[..., None], values[..., :-1]]
        return torch.cat([torch.cat([first, column], dim=2), rest], dim=3)

    def conditionals(self, num_images: int) -> Conditionals:
        return NeighbourConditionals(self, num_images)

    def num_parameters(self) -> int:
        return self.spec.channels * (2 * self.spec.levels + 1) * (self.spec.levels - 1)


def smoothed_conditional(pairs: Tensor, marginal: Tensor, pseudo_count: float) -> Tensor:
    """P(level | neighbour). Shapes: counts (C, K, K) of (neighbour, level), (C, K) of levels, () -> (C, K, K)."""
    smoothed = pairs + pseudo_count * (marginal / marginal.sum(dim=1, keepdim=True))[:, None, :]
    return smoothed / smoothed.sum(dim=2, keepdim=True)


class NeighbourConditionals(Conditionals):
    """Looks the left or the upper neighbour up: all that is kept is the last pixel and the last row's first one."""

    def __init__(self, model: HistogramLeft, num_images: int) -> None:
        self.model = model
        self.num_images = num_images
        self.position = 0
        self.left: list[Tensor] = [torch.zeros(0)] * model.spec.channels
        self.row_start: list[Tensor] = list(self.left)

    def log_pmf(self) -> Tensor:
        pixel, channel = divmod(self.position, self.model.spec.channels)
        if pixel == 0:
            return self.model.marginal_log_table[channel].expand(self.num_images, -1)
        if pixel % self.model.spec.width == 0:
            return self.model.log_table[ABOVE, channel, self.row_start[channel]]
        return self.model.log_table[LEFT, channel, self.left[channel]]

    def push(self, values: Tensor) -> None:
        pixel, channel = divmod(self.position, self.model.spec.channels)
        self.left[channel] = values
        if pixel % self.model.spec.width == 0:
            self.row_start[channel] = values
        self.position += 1
