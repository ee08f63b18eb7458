"""Independent sub-pixels, one histogram per channel: what the grey levels' frequencies alone are worth."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.model_api.ancestral import Conditionals
from dgm.model_api.contracts import AutoregressiveModel, Fitted
from dgm.types import Images, ImageSpec


class HistogramPerChannelConfig(Config):
    """pseudo_count: added to the count of every level, so that no level has probability zero."""

    pseudo_count: float = Field(gt=0)


class HistogramPerChannel(Fitted[HistogramPerChannelConfig], AutoregressiveModel[HistogramPerChannelConfig]):
    """P(image) = product over sub-pixels of the frequency of its level in its channel."""

    config_type = HistogramPerChannelConfig

    def __init__(self, spec: ImageSpec, config: HistogramPerChannelConfig) -> None:
        super().__init__(spec, config)
        uniform = torch.full((spec.channels, spec.levels), 1 / spec.levels, dtype=torch.float64)
        self.log_table = nn.Buffer(uniform.log())

    def start(self, images: Images, generator: torch.Generator) -> None:
        levels = self.spec.levels
        counts = torch.stack([images[:, c].flatten().bincount(minlength=levels) for c in range(self.spec.channels)])
        smoothed = counts.double() + self.config.pseudo_count
        self.log_table.copy_((smoothed / smoothed.sum(dim=1, keepdim=True)).log())

    def log_prob(self, images: Images) -> Tensor:
        channels = torch.arange(self.spec.channels, device=images.device).view(1, -1, 1, 1)
        return self.log_table[channels, images.long()].sum(dim=(1, 2, 3))

    def log_pmf(self, images: Images) -> Tensor:
        return self.log_table[:, None, None, :].expand(*images.shape, self.spec.levels)

    def conditionals(self, num_images: int) -> Conditionals:
        return HistogramConditionals(self.log_table, num_images)

    def num_parameters(self) -> int:
        return self.spec.channels * (self.spec.levels - 1)


class HistogramConditionals(Conditionals):
    """The table's rows in turn: nothing depends on what was pushed."""

    def __init__(self, log_table: Tensor, num_images: int) -> None:
        self.log_table = log_table
        self.num_images = num_images
        self.position = 0

    def log_pmf(self) -> Tensor:
        row = self.log_table[self.position % len(self.log_table)]
        return row.expand(self.num_images, -1)

    def push(self, values: Tensor) -> None:
        self.position += 1
