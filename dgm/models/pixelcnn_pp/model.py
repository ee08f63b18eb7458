"""PixelCNN++: two gated causal streams over three grids, and a logistic mixture over each pixel's channels.

Source: Salimans, Karpathy, Chen & Kingma (2017), arXiv 1701.05517, and the authors' code (openai/pixel-cnn).
Differs: the mixture's bins are exact (see `dgm.distributions.discretized_logistic`); sampled pixels lie on the grid of
levels, so the sampled and the scored distribution are one; the head starts at `initial_mixture_parameters` plus little.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dgm.config.parse import Config
from dgm.distributions.discretized_logistic import MAX_ABS_LOG_SCALE, unit_from_levels
from dgm.distributions.logistic_mixture import (
    MIN_LOG_SCALE,
    LogisticMixture,
    initial_mixture_parameters,
    num_mixture_parameters,
)
from dgm.distributions.mixture_log_prob import means_given, mixture_log_prob
from dgm.distributions.precision import at_least_float32
from dgm.model_api.ancestral import Conditionals
from dgm.model_api.contracts import TrainedAutoregressiveModel
from dgm.models.pixelcnn_pp.shifted_conv import DataInitialized, PointwiseConv2d
from dgm.models.pixelcnn_pp.two_stream import TwoStreamNet
from dgm.models.pixelcnn_pp.two_stream_cache import TwoStreamCache
from dgm.nets.mixture_conditionals import MixtureConditionals
from dgm.types import Images, ImageSpec


class PixelCNNppConfig(Config):
    """Published for CIFAR-10: 160 filters in the code (192 in the paper), 5 residual blocks per stage, 3 stages.

    num_init_images: batch of the data-dependent initialisation; 0 leaves the random one.
    """

    num_filters: int = Field(ge=1)
    num_resnets: int = Field(ge=1)
    num_stages: int = Field(ge=1)
    num_mixtures: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    weight_norm: bool
    num_init_images: int = Field(ge=0)


class PixelCNNpp(TrainedAutoregressiveModel[PixelCNNppConfig]):
    """P(image) as a product over pixels of mixtures of discretized logistics, one mixture for a pixel's channels."""

    config_type = PixelCNNppConfig
    hot_method = "parameters_of_mixture"

    def __init__(self, spec: ImageSpec, config: PixelCNNppConfig) -> None:
        super().__init__(spec, config)
        multiple = 2 ** (config.num_stages - 1)
        if spec.height % multiple or spec.width % multiple:
            raise ValueError(
                f"num_stages {config.num_stages} halves the image {config.num_stages - 1} times, so height and width "
                f"must be multiples of {multiple}; the image is {spec.height} x {spec.width}"
            )
        self.net = TwoStreamNet(
            in_channels=spec.channels + 1,
            features=config.num_filters,
            num_resnets=config.num_resnets,
            num_stages=config.num_stages,
            dropout=config.dropout,
            weight_norm=config.weight_norm,
        )
        start = initial_mixture_parameters(spec.channels, config.num_mixtures)
        self.head = PointwiseConv2d(config.num_filters, len(start), 0.1, config.weight_norm)
        self.head.bias.data.copy_(start)

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        """Data-dependent initialisation: each layer of the trunk in turn, on what the layers before it now put out."""
        if self.config.num_init_images == 0:
            return
        order = torch.randperm(len(images), generator=generator, device=generator.device).to(images.device)
        layers = [module for module in self.net.modules() if isinstance(module, DataInitialized)]
        hooks = [layer.register_forward_pre_hook(DataInitialized.initialize_from) for layer in layers]
        with torch.no_grad():
            self.mixture(images[order[: self.config.num_init_images]])
        for hook in hooks:
            hook.remove()

    def parameters_of_mixture(self, x: Tensor) -> Tensor:
        """The head's outputs, the positions last in memory.

        Shapes: [-1, 1] floats (N, C, H, W) -> (N, H, W, num_mixture_parameters).
        """
        features = F.elu(self.net(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))).permute(0, 2, 3, 1)
        outputs = torch.addmm(self.head.bias.unsqueeze(1), self.head.kernel().flatten(1), features.flatten(0, 2).T)
        return outputs.unflatten(1, features.shape[:3]).permute(1, 2, 3, 0)

    def mixture(self, images: Images) -> LogisticMixture:
        """Distributions of all pixels given the earlier ones. Shapes: uint8 (N, C, H, W) -> mixture of (N, H, W)."""
        x = unit_from_levels(images, self.spec.levels, self.head.bias.dtype)
        return LogisticMixture.from_parameters(self.parameters_of_mixture(x), self.spec.channels, self.spec.levels)

    def log_prob(self, images: Images) -> Tensor:
        x = unit_from_levels(images, self.spec.levels, self.head.bias.dtype)
        parameters = at_least_float32(self.parameters_of_mixture(x)).permute(3, 0, 1, 2).flatten(1)
        values = x.to(parameters.dtype).transpose(0, 1).flatten(1)
        channels = self.spec.channels
        groups = parameters.unflatten(0, (num_mixture_parameters(channels, 1), -1))
        num_pairs = channels * (channels - 1) // 2
        logits, means, log_scales, coefficients = groups.split([1, channels, channels, num_pairs])
        means = means_given(means, torch.tanh(coefficients), values)
        log_scales = log_scales.clamp(MIN_LOG_SCALE, MAX_ABS_LOG_SCALE)
        per_pixel = mixture_log_prob(values, logits[0], means, log_scales, self.spec.levels)
        return per_pixel.double().unflatten(0, (len(images), -1)).sum(dim=1)

    def log_pmf(self, images: Images) -> Tensor:
        return self.mixture(images).log_pmf(images.permute(0, 2, 3, 1).long()).permute(0, 3, 1, 2, 4)

    def conditionals(self, num_images: int) -> Conditionals:
        return PixelCNNppConditionals(self, num_images)


class PixelCNNppConditionals(MixtureConditionals):
    """The network runs incrementally, once per pixel."""

    @torch.no_grad()
    def __init__(self, model: PixelCNNpp, num_images: int) -> None:
        self.model = model
        self.cache = TwoStreamCache(model.net, num_images, model.spec.width)
        self.head = model.head.kernel().flatten(1).T
        super().__init__(model.spec, self.head.dtype)

    def next_mixture(self) -> LogisticMixture:
        parameters = torch.addmm(self.model.head.bias, F.elu(self.cache.features()), self.head)
        return LogisticMixture.from_parameters(parameters, self.spec.channels, self.spec.levels)

    def push_pixel(self, x: Tensor) -> None:
        self.cache.push(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
