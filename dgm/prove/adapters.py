"""Autoregressive models of other people: what their network puts out, as conditionals of this benchmark's contract.

A network that gives the parameters of all conditionals in one pass, teacher-forced, becomes an `AutoregressiveModel`.
Sources: van den Oord et al. (2016), arXiv 1601.06759 (logits); Salimans et al. (2017), arXiv 1701.05517 (mixtures).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.distributions import categorical
from dgm.distributions.discretized_logistic import discretized_logistic_log_pmf, discretized_logistic_log_prob
from dgm.distributions.logistic_mixture import LogisticMixture, num_mixture_parameters
from dgm.model_api.ancestral import Conditionals
from dgm.model_api.contracts import AutoregressiveModel
from dgm.prove.inputs import Inputs, Order, check_inputs, network_input, positions
from dgm.types import CIFAR10, Images, ImageSpec

Network: TypeAlias = nn.Module | Callable[[Tensor], Tensor]


class NetworkModel(AutoregressiveModel[Config]):
    """A network and how to read it: what it is given, in which order, and what its output means.

    network: one tensor to one tensor. inputs, order: see `network_input` and `positions`. log_prob: the author's own
    function, uint8 images to nats (N,); it is compared with the conditionals. None: they are summed here.
    """

    def __init__(
        self,
        network: Network,
        inputs: Inputs = "symmetric",
        order: Order = "raster",
        spec: ImageSpec = CIFAR10,
        log_prob: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(spec, Config())
        check_inputs(inputs)
        self.network, self.own_log_prob = network, log_prob
        self.inputs: Inputs = inputs
        self.positions = positions(order, spec)
        self.precision = nn.Buffer(torch.zeros(()), persistent=False)  # knows type and device

    @abstractmethod
    def read(self, output: Tensor) -> Tensor:
        """The parameters of each pixel. Shapes: the network's output -> (N, H, W, P). Raises: ValueError."""

    @abstractmethod
    def pixel_log_pmf(self, parameters: Tensor, values: Tensor) -> Tensor:
        """The conditionals of a pixel's channels. Shapes: (..., P), integers (..., C) -> (..., C, levels)."""

    @abstractmethod
    def pixel_log_prob(self, parameters: Tensor, values: Tensor) -> Tensor:
        """Natural-log probability of each pixel. Shapes: (..., P), integers (..., C) -> (...)."""

    @abstractmethod
    def used(self, parameters: Tensor) -> Tensor:
        """What each sub-pixel's conditional is made of, and nothing else. Shapes: (N, H, W, P) -> (N, H, W, C, Q)."""

    def given(self, images: Images) -> Tensor:
        """What the network reads. Shapes: uint8 (N, C, H, W) -> its input."""
        return network_input(images, self.inputs, self.spec.levels, self.precision.dtype)

    def parameters_of(self, images: Images) -> Tensor:
        """Shapes: uint8 (N, C, H, W) -> (N, H, W, P)."""
        return self.read(self.network(self.given(images)))

    def log_pmf(self, images: Images) -> Tensor:
        log_pmf = self.pixel_log_pmf(self.parameters_of(images), images.permute(0, 2, 3, 1))
        return log_pmf.permute(0, 3, 1, 2, 4)

    def log_prob(self, images: Images) -> Tensor:
        if self.own_log_prob is not None:
            return self.own_log_prob(images).double()
        pixels = self.pixel_log_prob(self.parameters_of(images), images.permute(0, 2, 3, 1))
        return pixels.flatten(1).sum(dim=1, dtype=torch.float64)

    def order(self) -> Tensor:
        return self.positions

    def conditionals(self, num_images: int) -> Conditionals:
        return PixelConditionals(self, num_images)

    @property
    def device(self) -> torch.device:
        return self.precision.device

    def _shaped(self, output: Tensor, expected: str) -> ValueError:
        channels, height, width, levels = self.spec.channels, self.spec.height, self.spec.width, self.spec.levels
        return ValueError(
            f"the network puts out {tuple(output.shape)}; {type(self).__name__} reads {expected} for images of "
            f"C={channels}, H={height}, W={width} and {levels} levels"
        )


class PixelConditionals(Conditionals):
    """The whole network again for each sub-pixel, but the distribution of that one only."""

    def __init__(self, model: NetworkModel, num_images: int) -> None:
        self.model, self.order, self.position = model, model.order().tolist(), 0
        self.flat = torch.zeros(num_images, model.spec.num_subpixels, dtype=torch.uint8, device=model.device)

    @torch.no_grad()
    def log_pmf(self) -> Tensor:
        channel, pixel = divmod(self.order[self.position], self.model.spec.num_pixels)
        images = self.flat.view(-1, *self.model.spec.shape)
        parameters = self.model.parameters_of(images).flatten(1, 2)[:, pixel]
        return self.model.pixel_log_pmf(parameters, images.flatten(2)[:, :, pixel])[:, channel]

    def push(self, values: Tensor) -> None:
        self.flat[:, self.order[self.position]] = values.to(torch.uint8)
        self.position += 1


class Logits(NetworkModel):
    """A softmax over the levels of each sub-pixel.

    Output: (N, levels, C, H, W), (N, C, levels, H, W), (N, C, H, W, levels), or (N, C * levels, H, W) with the levels
    of channel 0 first.
    """

    def read(self, output: Tensor) -> Tensor:
        channels, height, width, levels = self.spec.channels, self.spec.height, self.spec.width, self.spec.levels
        shape = tuple(output.shape[1:])
        if shape == (levels, channels, height, width):
            logits = output.permute(0, 3, 4, 2, 1)
        elif shape == (channels, levels, height, width):
            logits = output.permute(0, 3, 4, 1, 2)
        elif shape == (channels, height, width, levels):
            logits = output.permute(0, 2, 3, 1, 4)
        elif shape == (channels * levels, height, width):
            logits = output.unflatten(1, (channels, levels)).permute(0, 3, 4, 1, 2)
        else:
            forms = "(N, levels, C, H, W), (N, C, levels, H, W), (N, C, H, W, levels) or (N, C * levels, H, W)"
            raise self._shaped(output, forms)
        return logits.flatten(3)

    def _logits(self, parameters: Tensor) -> Tensor:
        return parameters.unflatten(-1, (self.spec.channels, self.spec.levels))

    def pixel_log_pmf(self, parameters: Tensor, values: Tensor) -> Tensor:
        return categorical.log_pmf(self._logits(parameters))

    def pixel_log_prob(self, parameters: Tensor, values: Tensor) -> Tensor:
        logits = self._logits(parameters)
        chosen = logits.gather(-1, values.long().unsqueeze(-1)).squeeze(-1)
        return (chosen - logits.logsumexp(dim=-1)).sum(dim=-1)

    def used(self, parameters: Tensor) -> Tensor:
        logits = self._logits(parameters)
        return logits - logits[..., :1]  # what is added to all logits changes no probability


class PixelMixture(NetworkModel):
    """The mixture of PixelCNN++: its components are shared by a pixel's channels, whose means follow each other.

    Output: (N, 10 M, H, W) for RGB, in the order of the authors' code: M logits of the weights, then for each channel
    M means, M log-scales and M coefficients before their tanh, in [-1, 1] units.
    """

    def read(self, output: Tensor) -> Tensor:
        channels, height, width = self.spec.shape
        size = num_mixture_parameters(channels, 1)
        if output.dim() != 4 or output.shape[2:] != (height, width) or output.shape[1] % size or channels not in (1, 3):
            raise self._shaped(output, f"(N, {size} M, H, W) with M components and 1 or 3 channels")
        num_mixtures = output.shape[1] // size
        logits, rest = output.permute(0, 2, 3, 1).split([num_mixtures, (size - 1) * num_mixtures], dim=-1)
        parts = rest.unflatten(-1, (channels, -1, num_mixtures)).unbind(dim=-2)  # means, log-scales, coefficients
        return torch.cat([logits, *(part.flatten(3) for part in parts)], dim=-1)

    def _mixture(self, parameters: Tensor) -> LogisticMixture:
        return LogisticMixture.from_parameters(parameters, self.spec.channels, self.spec.levels)

    def pixel_log_pmf(self, parameters: Tensor, values: Tensor) -> Tensor:
        return self._mixture(parameters).log_pmf(values)

    def pixel_log_prob(self, parameters: Tensor, values: Tensor) -> Tensor:
        return self._mixture(parameters).log_prob(values)

    def used(self, parameters: Tensor) -> Tensor:
        channels, mixture = self.spec.channels, self._mixture(parameters)
        weights = (mixture.log_weights - mixture.log_weights[..., :1]).unsqueeze(-2)
        groups = torch.cat([weights, mixture.means, mixture.log_scales, mixture.coefficients], dim=-2)
        last = [0, *range(channels), *range(channels)]  # the first channel that uses each group
        last += [channel for channel in range(1, channels) for _ in range(channel)]
        is_used = torch.tensor(last, device=groups.device) <= torch.arange(channels, device=groups.device).unsqueeze(1)
        return (groups.unsqueeze(-3) * is_used.unsqueeze(-1)).flatten(-2)


class LogisticMixtures(NetworkModel):
    """A mixture of discretized logistics for each sub-pixel on its own.

    Output: (N, C * 3 M, H, W) or (N, C, 3 M, H, W): for each channel M logits of the weights, M means and M log-scales,
    in [-1, 1] units.
    """

    def read(self, output: Tensor) -> Tensor:
        channels, height, width = self.spec.shape
        output = output.flatten(1, 2) if output.dim() == 5 and output.shape[1] == channels else output
        if output.dim() != 4 or output.shape[2:] != (height, width) or output.shape[1] % (3 * channels):
            raise self._shaped(output, "(N, C * 3 M, H, W) or (N, C, 3 M, H, W) with M components")
        return output.permute(0, 2, 3, 1)

    def _parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes: (..., P) -> log-weights, means, log-scales, each (..., C, M)."""
        logits, means, log_scales = parameters.unflatten(-1, (self.spec.channels, 3, -1)).unbind(dim=-2)
        return torch.log_softmax(logits, dim=-1), means, log_scales

    def pixel_log_pmf(self, parameters: Tensor, values: Tensor) -> Tensor:
        log_weights, means, log_scales = self._parts(parameters)
        components = discretized_logistic_log_pmf(means, log_scales, self.spec.levels)  # (..., C, M, levels)
        return torch.logsumexp(log_weights.unsqueeze(-1) + components, dim=-2)

    def pixel_log_prob(self, parameters: Tensor, values: Tensor) -> Tensor:
        log_weights, means, log_scales = self._parts(parameters)
        components = discretized_logistic_log_prob(values.unsqueeze(-1), means, log_scales, self.spec.levels)
        return torch.logsumexp(log_weights + components, dim=-1).sum(dim=-1)

    def used(self, parameters: Tensor) -> Tensor:
        log_weights, means, log_scales = self._parts(parameters)
        return torch.cat([log_weights - log_weights[..., :1], means, log_scales], dim=-1)
