"""What a model is: the base classes of all models.

The base class that a model derives from decides how its number may be called, so `exact` or `lower_bound` is
computed from the parts and never typed by hand:

AutoregressiveModel    log_prob                     -> "exact"
DensityModel           log_density + dequantization -> "dequantized"
BoundModel             bound_terms                  -> "elbo"
LatentVariableModel    log_weights, K samples       -> "importance-weighted (K)"

How a model learns is independent of that: GradientTrained (the engine's loop) or Fitted (closed form, EM).
TrainedAutoregressiveModel and TrainedDensityModel combine the two; variational models write their own training
objective (warm-up of the KL term, free bits).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from dgm.config.parse import Config
from dgm.dequantization import dequantize, quantize
from dgm.model_api.ancestral import Conditionals, RecomputedConditionals, sample_ancestrally
from dgm.types import Images, ImageSpec, NatsPerImage

EXACT = "exact"
DEQUANTIZED = "dequantized"
ELBO = "elbo"

ConfigT = TypeVar("ConfigT", bound=Config, default=Config, covariant=True)  # the type of a model's configuration


@dataclass(frozen=True)
class LogLikelihood:
    """log P(image) of each image, or a lower bound on it.

    nats: (N,) float64, natural logarithm. method: exact, dequantized, elbo or importance-weighted (K).
    terms: the parts whose sum is `nats`, each (N,); empty if the model has none.
    """

    nats: NatsPerImage
    method: str
    terms: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def kind(self) -> Literal["exact", "lower_bound"]:
        return "exact" if self.method == EXACT else "lower_bound"


@dataclass(frozen=True)
class Objective:
    """What one training step minimises (loss) and what it measured (nats); both (N,), in nats per image."""

    loss: Tensor
    nats: Tensor


@runtime_checkable
class HasIdleWeights(Protocol):
    """A module that stores more weights than can act."""

    def idle_weights(self) -> Mapping[str, Tensor]:
        """Which entries of its parameters change no output, whatever their value: removed by a mask, or cancelled.

        Shapes: name of a parameter, as `named_parameters` of this module has it -> bool, as the parameter.
        """
        ...


class Model(nn.Module, ABC, Generic[ConfigT]):
    """A distribution over uint8 images of one ImageSpec. Every learned number is a parameter or a buffer."""

    config_type: ClassVar[type[Config]]
    hot_method: ClassVar[str] = ""  # takes tensors only (no generator), so that it can be compiled

    def __init__(self, spec: ImageSpec, config: ConfigT) -> None:
        super().__init__()
        self.spec = spec
        self.config = config

    @abstractmethod
    def log_likelihood(self, images: Images, generator: torch.Generator) -> LogLikelihood:
        """One evaluation of each image; `generator` feeds dequantization noise or latent draws, if any."""

    @abstractmethod
    def sample(self, num_images: int, generator: torch.Generator, temperature: float = 1.0) -> Images:
        """Images drawn from the model. Shapes: () -> uint8 (N, C, H, W). Temperature 1 is the model itself."""

    def compile_hot_method(self) -> None:
        """Replaces the method that does the work by its compiled form (torch.compile), for one shape of batch."""
        if self.hot_method:
            setattr(self, self.hot_method, torch.compile(getattr(self, self.hot_method), dynamic=False))

    def num_parameters(self) -> int:
        """Number of free parameters. Fitted models override it: their parameters are buffers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def num_acting_parameters(self) -> int:
        """Of `num_parameters`, those that can change an output: without what masks remove and softmaxes cancel."""
        idle = [module.idle_weights() for module in self.modules() if isinstance(module, HasIdleWeights)]
        return self.num_parameters() - sum(int(entries.sum()) for of_module in idle for entries in of_module.values())

    def check_images(self, images: Images) -> None:
        """Raises: TypeError or ValueError if `images` is not uint8 (N, C, H, W) of this model's spec."""
        if images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8, got {images.dtype}")
        if tuple(images.shape[1:]) != self.spec.shape:
            raise ValueError(f"images must be (N, {self.spec.shape}), got {tuple(images.shape)}")

    @property
    def device(self) -> torch.device:
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")


class GradientTrained(Model[ConfigT]):
    """A model that the engine's loop trains."""

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        """Called once before step 0 with the whole training set: whitening, data-dependent initialisation."""
        return

    @abstractmethod
    def objective(self, images: Images, generator: torch.Generator, progress: float) -> Objective:
        """The loss of one minibatch, with gradient. `progress` runs from 0 to 1 over the training."""


class Fitted(Model[ConfigT]):
    """A model that learns in closed form or by EM.

    The engine calls start once, then iterate `training.num_iterations` times, with a checkpoint of the
    state_dict between calls: all state between iterations lives in buffers, so that a killed fit resumes.
    """

    @abstractmethod
    def start(self, images: Images, generator: torch.Generator) -> None:
        """Closed-form models learn here; EM models initialise."""

    def images_used(self, images: Images, iteration: int | None = None) -> Images:
        """Those of the training images that an EM iteration looks at; None: that `start` does. Default: all.

        `start` and `iterate` take them from here, so that the engine counts what the model looks at.
        """
        return images

    def iterate(self, images: Images, iteration: int, generator: torch.Generator) -> float:
        """One EM iteration; the mean training log-likelihood in nats per image at its start."""
        raise TypeError(f"{type(self).__name__} is fitted in closed form: set training.num_iterations to 0")

    def finish(self, images: Images) -> None:
        """Called once after the last iteration."""
        return


class AutoregressiveModel(Model[ConfigT]):
    """A product of conditionals over sub-pixels in `order`. The likelihood is exact."""

    hot_method = "log_prob"

    @abstractmethod
    def log_prob(self, images: Images) -> Tensor:
        """log P(image), differentiable. Shapes: (N, C, H, W) -> (N,), summed over sub-pixels in float64."""

    @abstractmethod
    def log_pmf(self, images: Images) -> Tensor:
        """Every conditional, teacher-forced. Shapes: (N, C, H, W) -> (N, C, H, W, levels)."""

    def order(self) -> Tensor:
        """Position t in the order -> flat index into (C, H, W). Default: raster, R then G then B in each pixel."""
        channels, pixels = self.spec.channels, self.spec.num_pixels
        return torch.arange(channels * pixels).view(channels, pixels).T.reshape(-1)

    def conditionals(self, num_images: int) -> Conditionals:
        """The incremental form. Models override it with cached activations."""
        return RecomputedConditionals(self, num_images)

    def log_likelihood(self, images: Images, generator: torch.Generator) -> LogLikelihood:
        self.check_images(images)
        return LogLikelihood(self.log_prob(images).double(), EXACT)

    @torch.no_grad()
    def sample(self, num_images: int, generator: torch.Generator, temperature: float = 1.0) -> Images:
        uniforms = torch.rand(
            num_images, self.spec.num_subpixels, generator=generator, device=generator.device, dtype=torch.float64
        )
        return sample_ancestrally(self, self.conditionals(num_images), uniforms.to(self.device), temperature)


class TrainedAutoregressiveModel(GradientTrained[ConfigT], AutoregressiveModel[ConfigT]):
    """Maximum likelihood by gradient: minimises -log P(image)."""

    def objective(self, images: Images, generator: torch.Generator, progress: float) -> Objective:
        nats = self.log_prob(images)
        return Objective(loss=-nats, nats=nats.detach())


class DensityModel(Model[ConfigT]):
    """A density over grey-level units, scored through uniform dequantization."""

    hot_method = "log_density"

    @abstractmethod
    def log_density(self, x: Tensor) -> Tensor:
        """log p(x), a density on [0, levels)^D. Shapes: float (N, C, H, W) in grey levels -> (N,) float64."""

    @abstractmethod
    def sample_density(self, num_images: int, generator: torch.Generator, temperature: float) -> Tensor:
        """Draws from the density. Shapes: -> float (N, C, H, W), in grey levels, possibly outside [0, levels)."""

    def log_likelihood(self, images: Images, generator: torch.Generator) -> LogLikelihood:
        self.check_images(images)
        return LogLikelihood(self.log_density(dequantize(images, generator)).double(), DEQUANTIZED)

    @torch.no_grad()
    def sample(self, num_images: int, generator: torch.Generator, temperature: float = 1.0) -> Images:
        return quantize(self.sample_density(num_images, generator, temperature), self.spec)


class TrainedDensityModel(GradientTrained[ConfigT], DensityModel[ConfigT]):
    """Maximum likelihood by gradient on dequantized images, fresh noise at every step."""

    def objective(self, images: Images, generator: torch.Generator, progress: float) -> Objective:
        nats = self.log_density(dequantize(images, generator))
        return Objective(loss=-nats, nats=nats.detach())


class BoundModel(Model[ConfigT]):
    """A model whose likelihood is known only through a variational lower bound."""

    @abstractmethod
    def bound_terms(self, images: Images, generator: torch.Generator) -> Mapping[str, Tensor]:
        """The parts of one estimate of the bound, e.g. reconstruction and -KL per layer, each (N,) in nats."""

    def log_likelihood(self, images: Images, generator: torch.Generator) -> LogLikelihood:
        self.check_images(images)
        terms = {name: term.double() for name, term in self.bound_terms(images, generator).items()}
        return LogLikelihood(torch.stack(list(terms.values())).sum(dim=0), ELBO, terms)


class LatentVariableModel(BoundModel[ConfigT]):
    """A bound model with importance weights, so that K samples tighten the bound.

    Source: Burda, Grosse & Salakhutdinov (2016), arXiv 1509.00519, equation 8.
    """

    @abstractmethod
    def log_weights(self, images: Images, generator: torch.Generator) -> Tensor:
        """log p(x, z) - log q(z | x) for one z of each image. Shapes: (N, C, H, W) -> (N,) float64."""

    def importance_weighted(self, images: Images, generator: torch.Generator, num_samples: int) -> LogLikelihood:
        self.check_images(images)
        weights = torch.stack([self.log_weights(images, generator).double() for _ in range(num_samples)])
        return LogLikelihood(weights.logsumexp(dim=0) - math.log(num_samples), f"importance-weighted ({num_samples})")
