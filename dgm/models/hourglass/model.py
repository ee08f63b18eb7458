"""Hourglass: a causal network at full resolution around attention between blocks of pixels; one token a pixel.

A linear prediction of each pixel and its expected error, both in closed form, set the scale of all inputs and the start
of the mixture. A stage at full resolution sees the pixels nearby; a shortened middle tells it of all blocks above; a
mixture of discretized logistics gives the channels of the pixel, each from those before it. The likelihood is exact.
A training step may score a part of each image, where the network has its true context: some pixels of many images
teach more than all pixels of a few.
Source: Nawrot et al. (2022), arXiv 2110.13711 (shortened middle); Parmar et al. (2018), arXiv 1802.05751 (one token a
pixel, logistic mixture); Salimans et al. (2017), arXiv 1701.05517 (mixture). Differs: inputs and mixture are relative
to the linear prediction; tokens are blocks of pixels in both directions; convolutions in place of local attention.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from dgm.config.parse import Config
from dgm.distributions.logistic_mixture import LogisticMixture
from dgm.distributions.relative_mixture import RelativeMixture
from dgm.model_api.ancestral import Conditionals
from dgm.model_api.contracts import Objective, TrainedAutoregressiveModel
from dgm.models.hourglass.conditionals import HourglassConditionals
from dgm.models.hourglass.crops import random_crops
from dgm.models.hourglass.local_inputs import LocalInputs, Planes
from dgm.models.hourglass.local_stage import LocalStage
from dgm.models.hourglass.middle import Middle
from dgm.models.hourglass.mixture_head import MixtureHead
from dgm.types import Images, ImageSpec

MAX_RESIDUAL = 10.0  # in units of its expectation, that the middle is told of
SCORED_PIXELS = 4096  # at a time on a CPU: what they take stays in its cache


class HourglassConfig(Config):
    """radius, residual_radius: of the pixels nearby whose values, and errors of prediction, are inputs. num_features,
    num_blocks, reach: of the stage at full resolution (dgm/models/hourglass/local_stage.py). shortening: side of the
    blocks of the middle. middle_features, num_middle_layers, num_heads: of the middle.
    crop_size: side of the part of each image that a training step works on. num_fit_images: that the linear prediction
    and the whitening are fitted to; ridge: penalty of the prediction, in multiples of their pixels.
    """

    radius: int = Field(ge=1)
    residual_radius: int = Field(ge=1)
    num_features: int = Field(ge=1)
    num_blocks: int = Field(ge=1)
    reach: int = Field(ge=0)
    shortening: int = Field(ge=1)
    middle_features: int = Field(ge=1)
    num_middle_layers: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    num_mixtures: int = Field(ge=1)
    crop_size: int = Field(ge=1)
    ridge: float = Field(gt=0)
    num_fit_images: int = Field(ge=1)


class Hourglass(TrainedAutoregressiveModel[HourglassConfig]):
    """P(image) as a product over pixels of mixtures of discretized logistics around a linear prediction."""

    config_type = HourglassConfig
    hot_method = "features"

    def __init__(self, spec: ImageSpec, config: HourglassConfig) -> None:
        super().__init__(spec, config)
        if config.residual_radius > config.radius:
            raise ValueError(f"residual_radius {config.residual_radius} is above radius {config.radius}")
        if config.middle_features % config.num_heads:
            raise ValueError(f"num_heads {config.num_heads} must divide middle_features {config.middle_features}")
        margin = config.num_blocks * config.reach
        if 2 * margin >= config.crop_size < max(spec.height, spec.width):
            raise ValueError(
                f"crop_size {config.crop_size} leaves nothing to score between margins of {margin} (num_blocks x reach)"
            )
        self.margin = margin
        self.inputs = LocalInputs(spec, config.radius, config.residual_radius)
        self.middle = Middle(
            2 * spec.channels + 1,
            (spec.height, spec.width),
            config.shortening,
            config.middle_features,
            config.num_middle_layers,
            config.num_heads,
        )
        self.local = LocalStage(
            self.inputs.num_inputs,
            config.middle_features,
            config.shortening**2,
            config.num_features,
            config.num_blocks,
            config.reach,
        )
        self.head = MixtureHead(config.num_features, self.inputs.num_inputs, spec.channels, config.num_mixtures)

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        """Fits the linear prediction and the whitening, and starts the mixture there."""
        order = torch.randperm(len(images), generator=generator, device=generator.device).to(images.device)
        images = images[order[: self.config.num_fit_images]]
        self.inputs.fit(images, self.config.ridge)
        self.head.start(self.inputs.planes(images), self.inputs.prediction.coefficients)

    def num_parameters(self) -> int:
        """Those of the network, and the fitted ones of the linear prediction; the whitening only multiplies weights."""
        return super().num_parameters() + self.inputs.prediction.num_parameters()

    def context(self, planes: Planes) -> Tensor:
        """What the middle says to the pixels of each block. Shapes: planes of whole images -> (N, rows, columns, D)."""
        channels = self.spec.channels
        predicted, scale = planes.here[..., :channels], planes.here[..., channels : channels + 1]
        residual = ((planes.x - predicted) / scale).clamp(-MAX_RESIDUAL, MAX_RESIDUAL)
        return self.middle(torch.cat([planes.x, residual, scale.log()], dim=-1))

    def features(self, inputs: Tensor, context: Tensor, place: Tensor) -> Tensor:
        return self.local(inputs, self.inputs.whitening, context, place)

    def outputs(self, planes: Planes, context: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """What the mixtures of a part of each image are made of.

        Shapes: planes of (N, h, w) pixels that lie at rows (N, h) and columns (N, w), or one for all images (1, ...);
        context of the whole images -> as dgm.models.hourglass.mixture_head has it.
        """
        side, inputs = self.config.shortening, self.inputs(planes)
        rows, columns = rows.unsqueeze(2), columns.unsqueeze(1)
        image = torch.arange(len(context), device=rows.device)[:, None, None]
        place = rows % side * side + columns % side
        features = self.features(inputs, context[image, rows // side, columns // side], place)
        return self.head(features, inputs, self.inputs.whitening)

    def mixture(self, outputs: Tensor, here: Tensor) -> RelativeMixture:
        """Shapes: as MixtureHead.mixture."""
        return self.head.mixture(outputs, here, self.inputs.prediction.coefficients, self.spec.levels)

    def _mixture_of_images(self, images: Images) -> LogisticMixture:
        planes = self.inputs.planes(images)
        rows, columns = (torch.arange(size, device=images.device).unsqueeze(0) for size in self.spec.shape[1:])
        return self.mixture(self.outputs(planes, self.context(planes), rows, columns), planes.here).mixture()

    def log_prob(self, images: Images) -> Tensor:
        is_cpu = images.device.type == "cpu"
        num_images = max(1, SCORED_PIXELS // self.spec.num_pixels if is_cpu else len(images))
        return torch.cat([self._log_prob_of_few(part) for part in images.split(num_images)])

    def _log_prob_of_few(self, images: Images) -> Tensor:
        per_pixel = self._mixture_of_images(images).log_prob(images.permute(0, 2, 3, 1).long())
        return per_pixel.double().sum(dim=(1, 2))

    def log_pmf(self, images: Images) -> Tensor:
        return self._mixture_of_images(images).log_pmf(images.permute(0, 2, 3, 1).long()).permute(0, 3, 1, 2, 4)

    def conditionals(self, num_images: int) -> Conditionals:
        return HourglassConditionals(self, num_images)

    def objective(self, images: Images, generator: torch.Generator, progress: float) -> Objective:
        """-log P(image), estimated from one random part of each image."""
        spec = self.spec
        crops = random_crops(len(images), (spec.height, spec.width), self.config.crop_size, self.margin, generator)
        planes = self.inputs.planes(images)
        part = planes.crop(crops.rows, crops.columns)
        outputs = self.outputs(part, self.context(planes), crops.rows, crops.columns)
        nats_per_pixel = self.mixture(outputs, part.here).log_prob(part.x.movedim(-1, 0))
        num_scored = crops.is_scored.sum(dim=(1, 2))
        nats = (nats_per_pixel * crops.is_scored).double().sum(dim=(1, 2)) * (spec.num_pixels / num_scored)
        return Objective(loss=-nats, nats=nats.detach())
