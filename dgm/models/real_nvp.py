"""Real NVP: affine couplings with checkerboard and channel masks at several scales.

Source: Dinh, Sohl-Dickstein & Bengio (2017), arXiv 1605.08803, sections 3.4 to 3.7 and 4.1, and the authors' code for
CIFAR-10: 8 residual blocks, 64 feature maps, one change of scale: 3 checkerboard couplings, squeeze, 3 channel
couplings with twice the maps, half of the variables factored out, 4 checkerboard couplings.
Differs: no weight norm (batch norm or actnorm does its work); couplings' networks start at zero.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from dgm.config.parse import Config
from dgm.dequantization import dequantize
from dgm.distributions.diagonal_gaussian import standard_noise
from dgm.distributions.gaussian import LOG_TWO_PI
from dgm.distributions.precision import sum_per_image
from dgm.model_api.contracts import TrainedDensityModel
from dgm.nets.flow_layers import (
    ActNorm,
    AffineCoupling,
    FlowBatchNorm,
    FlowLayer,
    Logit,
    ResidualNetwork,
    Squeeze,
    channel_mask,
    checkerboard_mask,
    invert,
)
from dgm.nets.layer_list import LayerList
from dgm.types import Images, ImageSpec


class RealNVPConfig(Config):
    """num_scales 2 is one change of scale; num_features doubles with it; margin is the logit's alpha.

    num_start_images is how many random training images the data-dependent start is computed from.
    """

    num_features: int = Field(ge=1)
    num_blocks: int = Field(ge=1)
    num_scales: int = Field(ge=1)
    norm: Literal["batch_norm", "act_norm"]
    margin: float = Field(gt=0, lt=0.5)
    num_start_images: int = Field(ge=2)


class RealNVP(TrainedDensityModel[RealNVPConfig]):
    """log p(x) = log N(z; 0, I) + log |det dz/dx|, z collected over the scales."""

    config_type = RealNVPConfig

    def __init__(self, spec: ImageSpec, config: RealNVPConfig) -> None:
        super().__init__(spec, config)
        factor = 2 ** (config.num_scales - 1)
        if spec.height % factor or spec.width % factor:
            raise ValueError(
                f"{config.num_scales} scales need height and width divisible by {factor}, got "
                f"{spec.height} x {spec.width}"
            )
        self.logit = Logit(spec.levels, config.margin)
        self.scales: LayerList[LayerList[FlowLayer]] = LayerList()
        channels, height, width, features = spec.channels, spec.height, spec.width, config.num_features
        for scale in range(config.num_scales):
            is_last = scale == config.num_scales - 1
            layers = self._couplings(4 if is_last else 3, channels, (height, width), features, is_checkerboard=True)
            if not is_last:
                channels, height, width, features = 4 * channels, height // 2, width // 2, 2 * features
                layers += [Squeeze()]
                layers += self._couplings(3, channels, (height, width), features, is_checkerboard=False)
                channels //= 2
            self.scales.append(LayerList(layers))

    def _couplings(
        self, count: int, channels: int, size: tuple[int, int], features: int, is_checkerboard: bool
    ) -> list[FlowLayer]:
        config = self.config
        has_batch_norm = config.norm == "batch_norm"
        layers: list[FlowLayer] = []
        for index in range(count):
            mask = checkerboard_mask(*size, index % 2) if is_checkerboard else channel_mask(channels, index % 2)
            network = ResidualNetwork(2 * channels, 2 * channels, features, config.num_blocks, has_batch_norm)
            layers.append(FlowBatchNorm(channels) if has_batch_norm else ActNorm(channels))
            layers.append(AffineCoupling(mask.expand(1, channels, *mask.shape[2:]).clone(), network))
        return layers

    @torch.no_grad()
    def prepare(self, images: Images, generator: torch.Generator) -> None:
        order = torch.randperm(len(images), generator=generator, device=generator.device)
        x = dequantize(images[order[: self.config.num_start_images]], generator).to(self._dtype)
        x, log_det = self.logit(x, x.new_zeros(len(x), dtype=torch.float64))
        for number, scale in enumerate(self.scales):
            for layer in scale:
                layer.initialise(x)
                x, log_det = layer(x, log_det)
            if number < len(self.scales) - 1:
                x = x.chunk(2, dim=1)[0]

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def log_density(self, x: Tensor) -> Tensor:
        log_prior = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        z, log_det = self.logit(x.to(self._dtype), log_prior)
        for number, scale in enumerate(self.scales):
            for layer in scale:
                z, log_det = layer(z, log_det)
            if number < len(self.scales) - 1:
                z, factored = z.chunk(2, dim=1)
                log_prior = log_prior + standard_normal_log_density(factored)
        return log_prior + standard_normal_log_density(z) + log_det

    def sample_density(self, num_images: int, generator: torch.Generator, temperature: float) -> Tensor:
        x: Tensor | None = None
        for number, scale in [*enumerate(self.scales, start=1)][::-1]:
            if x is None:
                x = self._noise(num_images, self._innermost_shape(), generator, temperature)
            else:
                x = torch.cat([x, self._noise(num_images, tuple(x.shape[1:]), generator, temperature)], dim=1)
            x = invert(scale, x, f"scale {number}")
        assert x is not None
        return self.logit.inverse(x)

    def _innermost_shape(self) -> tuple[int, ...]:
        changes = len(self.scales) - 1
        return (self.spec.channels * 2**changes, self.spec.height // 2**changes, self.spec.width // 2**changes)

    def _noise(self, num_images: int, shape: tuple[int, ...], generator: torch.Generator, temperature: float) -> Tensor:
        like = next(self.parameters())
        return temperature * standard_noise((num_images, *shape), generator, like, drawn_in=torch.float64)


def standard_normal_log_density(z: Tensor) -> Tensor:
    """log N(z; 0, I) of each image, in nats. Shapes: (N, ...) -> (N,) float64."""
    return sum_per_image(-0.5 * (z.double() ** 2 + LOG_TWO_PI))
