"""Uniform distribution over all images: exactly log2(levels) bits per sub-pixel, the baseline of all models."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.model_api.ancestral import Conditionals
from dgm.model_api.contracts import AutoregressiveModel, Fitted
from dgm.types import Images, ImageSpec


class UniformConfig(Config):
    """The uniform distribution has no settings."""


class Uniform(Fitted[UniformConfig], AutoregressiveModel[UniformConfig]):
    """P(image) = levels^-D."""

    config_type = UniformConfig

    def __init__(self, spec: ImageSpec, config: UniformConfig) -> None:
        super().__init__(spec, config)
        self.log_probability = nn.Buffer(torch.tensor(-math.log(spec.levels), dtype=torch.float64))

    def images_used(self, images: Images, iteration: int | None = None) -> Images:
        return images[:0]

    def start(self, images: Images, generator: torch.Generator) -> None:
        return None

    def log_prob(self, images: Images) -> Tensor:
        return (self.log_probability * self.spec.num_subpixels).double().expand(len(images))

    def log_pmf(self, images: Images) -> Tensor:
        return self.log_probability.expand(*images.shape, self.spec.levels)

    def conditionals(self, num_images: int) -> Conditionals:
        return UniformConditionals(self.log_probability.expand(num_images, self.spec.levels))

    def num_parameters(self) -> int:
        return 0


class UniformConditionals(Conditionals):
    """The same probabilities for every sub-pixel."""

    def __init__(self, log_pmf: Tensor) -> None:
        self.constant = log_pmf

    def log_pmf(self) -> Tensor:
        return self.constant

    def push(self, values: Tensor) -> None:
        return
