"""Layers of normalizing flows with their log-determinants: couplings, batch norm, actnorm, squeeze and logit.

Also the masks and the residual network that the affine couplings use.

Every layer maps (x, log_det) -> (y, log_det + log |det dy/dx|) and back with `inverse`. Log-determinants are float64
(N,), whatever the precision of the networks inside.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.distributions.precision import sum_per_image
from dgm.errors import StageError
from dgm.nets.layer_list import LayerList
from dgm.nets.zero_layers import zero_layer

VARIANCE_FLOOR = 1e-4


class FlowLayer(nn.Module, ABC):
    """One invertible map with a known log-determinant."""

    @abstractmethod
    def forward(self, x: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        """(y, log_det + log |det dy/dx|). Shapes: (N, C, H, W) or (N, D), (N,)."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """The x that forward maps to y."""

    def initialise(self, x: Tensor) -> None:
        """Data-dependent start from one batch; most layers have none."""
        return


def invert(layers: Iterable[FlowLayer], y: Tensor, where: str) -> Tensor:
    """The x that the flow layers, one after the other, map to y.

    Raises: StageError naming the layer of `where` whose inverse is not finite.
    """
    for number, layer in [*enumerate(layers, start=1)][::-1]:
        y = layer.inverse(y)
        if not bool(y.isfinite().all()):
            raise StageError(
                f"layer {number} of {where} ({type(layer).__name__}) cannot be inverted: what comes back is not "
                "finite. Its weights are out of range: train again with a lower learning_rate or gradient_clip"
            )
    return y


class Logit(FlowLayer):
    """z = logit(a + (1 - 2a) x / levels): grey levels to the real line.

    Source: Dinh, Sohl-Dickstein & Bengio (2017), arXiv 1605.08803, section 4.1.
    Differs: a + (1 - 2a) x as in the authors' code, where the text has a + (1 - a) x.
    """

    def __init__(self, levels: int, margin: float) -> None:
        super().__init__()
        self.levels, self.margin = levels, margin

    def forward(self, x: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        p = self.margin + (1 - 2 * self.margin) * x / self.levels
        log_p, log_q = p.log(), torch.log1p(-p)
        slope = math.log((1 - 2 * self.margin) / self.levels)
        return log_p - log_q, log_det + sum_per_image(slope - log_p - log_q)

    def inverse(self, y: Tensor) -> Tensor:
        return (torch.sigmoid(y) - self.margin) / (1 - 2 * self.margin) * self.levels


class Squeeze(FlowLayer):
    """2 x 2 patches become channels, ordered so that each half of the channels is a checkerboard of the patch.

    Shapes: (N, C, H, W) -> (N, 4C, H/2, W/2).
    """

    def forward(self, x: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        parts = [x[..., 0::2, 0::2], x[..., 1::2, 1::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2]]
        return torch.cat(parts, dim=1), log_det

    def inverse(self, y: Tensor) -> Tensor:
        num_images, channels, height, width = y.shape
        x = y.new_empty(num_images, channels // 4, 2 * height, 2 * width)
        x[..., 0::2, 0::2], x[..., 1::2, 1::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2] = y.chunk(4, dim=1)
        return x


class ActNorm(FlowLayer):
    """Affine map of each channel, started so that one batch leaves it with mean 0 and variance 1.

    Source: Kingma & Dhariwal (2018), arXiv 1807.03039, section 3.1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), keepdim=True, correction=0)
        self.offset.copy_(-mean)
        self.log_scale.copy_(-0.5 * (variance + VARIANCE_FLOOR).log())

    def forward(self, x: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        height, width = x.shape[2:]
        return (x + self.offset) * self.log_scale.exp(), log_det + self.log_scale.double().sum() * (height * width)

    def inverse(self, y: Tensor) -> Tensor:
        return y * (-self.log_scale).exp() - self.offset


class FlowBatchNorm(FlowLayer):
    """Batch norm without gain as an invertible layer: batch statistics in training, running ones in evaluation.

    Source: Dinh, Sohl-Dickstein & Bengio (2017), arXiv 1605.08803, section 3.7 and appendix E.
    """

    running_statistics = ("mean", "variance")  # averaged with the weights (dgm.engine.averaging)

    def __init__(self, channels: int, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        self.mean = nn.Buffer(torch.zeros(1, channels, 1, 1))
        self.variance = nn.Buffer(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = self.mean, self.variance
        if self.training:
            variance, mean = torch.var_mean(x, dim=(0, 2, 3), keepdim=True, correction=0)
            with torch.no_grad():
                self.mean.lerp_(mean.to(self.mean.dtype), 1 - self.decay)
                self.variance.lerp_(variance.to(self.variance.dtype), 1 - self.decay)
        log_scale = -0.5 * (variance + VARIANCE_FLOOR).log()
        height, width = x.shape[2:]
        return (x - mean) * log_scale.exp(), log_det + log_scale.double().sum() * (height * width)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), keepdim=True, correction=0)
        self.mean.copy_(mean)
        self.variance.copy_(variance)

    def inverse(self, y: Tensor) -> Tensor:
        return y * (self.variance + VARIANCE_FLOOR).sqrt() + self.mean


class AffineCoupling(FlowLayer):
    """The unmasked half is scaled and shifted by functions of the masked half: y = x exp(s) + t.

    `mask` (1, C, H, W) is 1 where x passes unchanged. s = gain tanh(raw).
    Source: Dinh, Sohl-Dickstein & Bengio (2017), arXiv 1605.08803, equations 7 to 9.
    Differs: the gain starts at one, not at zero. The networks here start at zero, and a product of two zeros never
    learns: neither factor has a gradient.
    """

    def __init__(self, mask: Tensor, network: nn.Module) -> None:
        super().__init__()
        self.mask = nn.Buffer(mask, persistent=False)
        self.network = network  # maps (N, 2C, H, W) to (N, 2C, H, W)
        self.gain = nn.Parameter(torch.ones(1))

    def idle_weights(self) -> dict[str, Tensor]:
        """A channel that is masked everywhere is read as zero; one that passes everywhere is not changed."""
        if not isinstance(self.network, ResidualNetwork):
            return {}
        is_unread, is_kept = ((self.mask == value).all(dim=-1).all(dim=-1)[0].repeat(2) for value in (0, 1))
        first, head = self.network.first, self.network.head
        return {
            "network.first.weight": is_unread.view(1, -1, 1, 1).expand_as(first.weight),
            "network.head.weight": is_kept.view(-1, 1, 1, 1).expand_as(head.weight),
            "network.head.bias": is_kept,
        }

    def _scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = x * self.mask
        inputs = torch.cat([kept, self.mask.to(x.dtype).expand_as(x)], dim=1)
        raw, shift = self.network(inputs).to(x.dtype).chunk(2, dim=1)
        free = 1 - self.mask
        return self.gain * torch.tanh(raw) * free, shift * free

    def forward(self, x: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._scale_and_shift(x)
        return x * log_scale.exp() + shift, log_det + sum_per_image(log_scale)

    def inverse(self, y: Tensor) -> Tensor:
        log_scale, shift = self._scale_and_shift(y)
        return (y - shift) * (-log_scale).exp()


class AdditiveCoupling(FlowLayer):
    """Coordinates of one parity are shifted by a function of the others; the volume does not change.

    Shapes: (N, D). Source: Dinh, Krueger & Bengio (2015), arXiv 1410.8516, section 3.2.
    """

    def __init__(self, network: nn.Module, parity: int) -> None:
        super().__init__()
        self.network, self.parity = network, parity

    def _shift(self, x: Tensor) -> Tensor:
        return self.network(x[:, 1 - self.parity :: 2]).to(x.dtype)

    def forward(self, x: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        y = x.clone()
        y[:, self.parity :: 2] = x[:, self.parity :: 2] + self._shift(x)
        return y, log_det

    def inverse(self, y: Tensor) -> Tensor:
        x = y.clone()
        x[:, self.parity :: 2] = y[:, self.parity :: 2] - self._shift(y)
        return x


def checkerboard_mask(height: int, width: int, parity: int) -> Tensor:
    """1 where row + column has the given parity. Shapes: -> (1, 1, H, W)."""
    rows, columns = torch.arange(height).unsqueeze(1), torch.arange(width)
    return ((rows + columns) % 2 == parity).float().view(1, 1, height, width)


def channel_mask(channels: int, parity: int) -> Tensor:
    """1 on the first (parity 0) or second half of the channels. Shapes: -> (1, C, 1, 1)."""
    is_first = torch.arange(channels) < channels // 2
    return (is_first if parity == 0 else ~is_first).float().view(1, channels, 1, 1)


class ResidualNetwork(nn.Module):
    """The network inside an affine coupling: pre-activation blocks, each with a 1 x 1 skip to the output.

    Source: the authors' code of Real NVP (block and skip layout). Differs: the last layer starts at zero.
    Shapes: (N, in, H, W) -> (N, out, H, W).
    """

    def __init__(self, num_inputs: int, num_outputs: int, width: int, num_blocks: int, has_batch_norm: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(num_inputs, width, 3, padding=1)
        self.blocks = LayerList(_Block(width, has_batch_norm) for _ in range(num_blocks))
        self.skips = LayerList(nn.Conv2d(width, width, 1) for _ in range(num_blocks + 1))
        self.norm = nn.BatchNorm2d(width) if has_batch_norm else nn.Identity()
        self.head = nn.Conv2d(width, num_outputs, 1)
        zero_layer(self.head)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        total = self.skips[0](x)
        for block, skip in zip(self.blocks, self.skips[1:], strict=True):
            x = block(x)
            total = total + skip(x)
        return self.head(F.relu(self.norm(total)))


class _Block(nn.Module):
    def __init__(self, width: int, has_batch_norm: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width) if has_batch_norm else nn.Identity()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=not has_batch_norm)
        self.norm2 = nn.BatchNorm2d(width) if has_batch_norm else nn.Identity()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(inner)))
