"""NICE: exact ZCA, additive couplings, a diagonal scale, a logistic prior.

Source: Dinh, Krueger & Bengio (2015), arXiv 1410.8516, sections 3 and 5.1 (CIFAR-10: 4 couplings, each a ReLU network
of 4 hidden layers of 2,000 units; logistic prior; 5371.78 nats on data in [-1, 1], that is 4.48 bits per sub-pixel).
Differs: the networks' last layers start at zero and the scales at their maximum likelihood, so that training begins at
the linear baseline (ZCA with a factorised logistic), which is already as good as the published figure; dropout; where
has_mirrored_whitening, the covariance is that of the training images and their mirror images: with 45,000 images for
4.7 million entries, that is worth more on new images than the couplings are.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.dequantization import dequantize
from dgm.distributions.gaussian import image_moments, zca
from dgm.model_api.contracts import TrainedDensityModel
from dgm.nets.flow_layers import AdditiveCoupling, invert
from dgm.nets.layer_list import LayerList
from dgm.nets.zero_layers import zero_layer
from dgm.types import Images, ImageSpec

NUM_FIXED_POINT_STEPS = 30


class NICEConfig(Config):
    """num_couplings alternate between even and odd coordinates; each is a ReLU network of num_hidden_layers layers.

    num_whitening_images is how many training images the whitening is computed from, null for all;
    has_mirrored_whitening adds their mirror images. num_scale_images is how many the scales are fitted to at the start.
    """

    num_couplings: int = Field(ge=2)
    num_hidden_layers: int = Field(ge=1)
    num_hidden: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    num_whitening_images: int | None = Field(ge=1)
    has_mirrored_whitening: bool
    num_scale_images: int = Field(ge=1)


class NICE(TrainedDensityModel[NICEConfig]):
    """log p(x) = sum_i [log logistic(exp(s_i) h_i) + s_i] + log |det ZCA|, h the couplings of the whitened image."""

    config_type = NICEConfig

    def __init__(self, spec: ImageSpec, config: NICEConfig) -> None:
        super().__init__(spec, config)
        size = spec.num_subpixels
        self.mean = nn.Buffer(torch.full((size,), spec.levels / 2))
        self.whitening = nn.Buffer(torch.eye(size))
        self.whitening_log_det = nn.Buffer(torch.zeros((), dtype=torch.float64))
        self.couplings = LayerList(
            AdditiveCoupling(self._network(index % 2), parity=index % 2) for index in range(config.num_couplings)
        )
        self.log_scale = nn.Parameter(torch.zeros(size))

    def _network(self, parity: int) -> nn.Sequential:
        config = self.config
        size = self.spec.num_subpixels
        num_shifted = len(range(parity, size, 2))
        widths = [size - num_shifted, *[config.num_hidden] * config.num_hidden_layers]
        layers: list[nn.Module] = []
        for num_inputs, num_outputs in itertools.pairwise(widths):
            layers += [nn.Linear(num_inputs, num_outputs), nn.ReLU(), nn.Dropout(config.dropout)]
        head = nn.Linear(widths[-1], num_shifted)
        zero_layer(head)
        return nn.Sequential(*layers, head)

    @torch.no_grad()
    def prepare(self, images: Images, generator: torch.Generator) -> None:
        config = self.config
        mean, covariance = image_moments(
            images[: config.num_whitening_images], is_mirrored=config.has_mirrored_whitening
        )
        whitening, log_det = zca(covariance, "covariance of the training images")
        self.mean.copy_(mean)
        self.whitening.copy_(whitening)
        self.whitening_log_det.copy_(log_det)
        whitened = self._whiten(dequantize(images[: config.num_scale_images], generator).to(self.whitening.dtype))
        self.log_scale.copy_(logistic_log_scales(whitened))

    def _whiten(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # the covariance's condition number forbids bfloat16 here
            return (x.flatten(1).to(self.whitening.dtype) - self.mean) @ self.whitening

    def log_density(self, x: Tensor) -> Tensor:
        h = self._whiten(x)
        log_det = self.whitening_log_det + self.log_scale.double().sum()
        for coupling in self.couplings:
            h, log_det = coupling(h, log_det)
        return standard_logistic_log_density(h * self.log_scale.exp()).double().sum(dim=1) + log_det

    def sample_density(self, num_images: int, generator: torch.Generator, temperature: float) -> Tensor:
        shape = (num_images, self.spec.num_subpixels)
        uniforms = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
        h = temperature * torch.logit(uniforms, eps=1e-12).to(self.whitening) * (-self.log_scale).exp()
        h = invert(self.couplings, h, "the couplings")
        x = torch.linalg.solve(self.whitening.double(), h.double().T).T + self.mean
        return x.view(num_images, *self.spec.shape)

    def num_parameters(self) -> int:
        """Those of the networks and scales, and of the mean and covariance that whiten."""
        dim = self.spec.num_subpixels
        return super().num_parameters() + dim + dim * (dim + 1) // 2


def standard_logistic_log_density(x: Tensor) -> Tensor:
    """log of the logistic density with mean 0 and scale 1. Shapes: unchanged."""
    return -F.softplus(x) - F.softplus(-x)


def logistic_log_scales(h: Tensor) -> Tensor:
    """s of each column that maximises the mean of log logistic(exp(s) h) + s. Shapes: (N, D) -> (D,).

    The derivative 1 - mean(u tanh(u / 2)), u = exp(s) h, falls with s: a damped fixed point finds its zero.
    """
    log_scale = torch.full_like(h[0], 0.6)
    for _ in range(NUM_FIXED_POINT_STEPS):
        u = h * log_scale.exp()
        log_scale = log_scale - 0.6 * (u * torch.tanh(u / 2)).mean(dim=0).clamp(min=1e-6).log()
    return log_scale
