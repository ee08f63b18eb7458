"""Models of other people that give one number per image: a probability, a density or a bound.

Nothing inside them can be looked at, so whether their probabilities sum to one shows only at a tiny size: `tiny` is a
function that returns an adapter of the same code for so few pixels that all images can be summed or integrated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.dequantization import dequantize
from dgm.errors import StageError
from dgm.model_api.contracts import DEQUANTIZED, BoundModel, DensityModel, LogLikelihood, Model
from dgm.prove.adapters import Network
from dgm.seeds import derived_seed
from dgm.types import CIFAR10, Images, ImageSpec

CLAIMED = "claimed"  # log P(image) as the author's function says it: no conditionals to check it by


class LogProb(Model[Config]):
    """A function from uint8 images to log P(image) in nats, (N,). network: what it uses, or the function itself."""

    def __init__(
        self,
        network: Network,
        log_prob: Callable[[Tensor], Tensor] | None = None,
        spec: ImageSpec = CIFAR10,
        tiny: Callable[[], Model[Any]] | None = None,
    ) -> None:
        super().__init__(spec, Config())
        self.network, self.function, self.tiny = network, log_prob or network, tiny
        self.precision = nn.Buffer(torch.zeros(()), persistent=False)

    def log_likelihood(self, images: Images, generator: torch.Generator) -> LogLikelihood:
        self.check_images(images)
        return LogLikelihood(_one_each(self.function(images), images, "log_prob"), CLAIMED)

    def sample(self, num_images: int, generator: torch.Generator, temperature: float = 1.0) -> Images:
        raise StageError("a log_prob alone does not sample")


class Flow(DensityModel[Config]):
    """A function from real images to the log of their density, in nats, (N,).

    low, high: the range of x in which the levels lie: level v is the cell [low + v w, low + (v + 1) w) of the width
    w = (high - low) / levels. So (0, 1) for x = (v + u) / 256, (-0.5, 0.5) for Glow's, (0, 256) for plain levels.
    The density is then converted to grey levels, and scored with uniform noise: a bound, by Jensen's inequality.
    """

    def __init__(
        self,
        network: Network,
        low: float,
        high: float,
        log_density: Callable[[Tensor], Tensor] | None = None,
        spec: ImageSpec = CIFAR10,
        tiny: Callable[[], Model[Any]] | None = None,
    ) -> None:
        super().__init__(spec, Config())
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"low and high: must be finite and low below high, got {low!r} and {high!r}")
        self.network, self.function, self.tiny = network, log_density or network, tiny
        self.low, self.width = float(low), (high - low) / spec.levels
        self.precision = nn.Buffer(torch.zeros(()), persistent=False)

    def to_own_units(self, x: Tensor) -> Tensor:
        """Grey levels to the range of the network. Shapes: unchanged."""
        return self.low + self.width * x

    def log_density(self, x: Tensor) -> Tensor:
        own = _one_each(self.function(self.to_own_units(x.to(self.precision.dtype))), x, "log_density")
        return own + self.spec.num_subpixels * math.log(self.width)

    def log_likelihood(self, images: Images, generator: torch.Generator) -> LogLikelihood:
        self.check_images(images)
        return LogLikelihood(self.log_density(dequantize(images, generator, self.precision.dtype)), DEQUANTIZED)

    def sample_density(self, num_images: int, generator: torch.Generator, temperature: float) -> Tensor:
        raise StageError("a log_density alone does not sample")


class Elbo(BoundModel[Config]):
    """A function from uint8 images to one estimate of a lower bound on log P(image), in nats, (N,).

    It draws from torch's global generator, which is set before each call to a function of the seed and the batch.
    """

    def __init__(
        self,
        network: Network,
        elbo: Callable[[Tensor], Tensor] | None = None,
        spec: ImageSpec = CIFAR10,
        tiny: Callable[[], Model[Any]] | None = None,
    ) -> None:
        super().__init__(spec, Config())
        self.network, self.function, self.tiny = network, elbo or network, tiny
        self.precision = nn.Buffer(torch.zeros(()), persistent=False)

    def bound_terms(self, images: Images, generator: torch.Generator) -> Mapping[str, Tensor]:
        devices = [images.device] if images.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(derived_seed(generator.initial_seed()))
            return {"bound": _one_each(self.function(images), images, "elbo")}

    def sample(self, num_images: int, generator: torch.Generator, temperature: float = 1.0) -> Images:
        raise StageError("a bound alone does not sample")


def _one_each(nats: object, images: Tensor, name: str) -> Tensor:
    """Raises: ValueError unless there is one real number per image."""
    if not isinstance(nats, Tensor) or nats.shape != (len(images),):
        found = tuple(nats.shape) if isinstance(nats, Tensor) else type(nats).__name__
        raise ValueError(f"{name} must give one number per image, ({len(images)},); it gives {found}")
    if nats.is_complex() or nats.dtype == torch.bool:
        raise ValueError(f"{name} must give real numbers; it gives {nats.dtype}")
    return nats.double()
