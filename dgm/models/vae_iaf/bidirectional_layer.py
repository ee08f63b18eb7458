"""One stochastic layer of a bidirectional residual ladder: evidence on the way up, latents on the way down.

Source: Kingma et al. (2016), arXiv 1606.04934, appendix C.3 and figure 5.
Differs: no weight normalisation; the parts that give means and log-scales are zero at first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.distributions.diagonal_gaussian import DiagonalGaussian
from dgm.models.vae_iaf.inverse_autoregressive import InverseAutoregressiveStep
from dgm.nets.zero_layers import bias_of

LOG_STD_RANGE = (-8.0, 3.0)
RESIDUAL_SCALE = 0.1


@dataclass(frozen=True)
class Evidence:
    """What the way up hands to the posterior of one layer: mean and log_std as z, context as h."""

    mean: Tensor
    log_std: Tensor
    context: Tensor


class BidirectionalLayer(nn.Module):
    """Shapes: h (N, features, h, w) on both ways, z (N, latents, h, w).

    The topmost layer hands nothing upwards: it has no second convolution on the way up.
    """

    def __init__(self, num_features: int, num_latents: int, num_hidden_layers: int, is_top: bool) -> None:
        super().__init__()
        self.num_features, self.num_latents, self.is_top = num_features, num_latents, is_top
        num_upward = 2 * num_latents + (1 if is_top else 2) * num_features
        self.up_first = nn.Conv2d(num_features, num_upward, 3, padding=1)
        if not is_top:
            self.up_second = nn.Conv2d(num_features, num_features, 3, padding=1)
        self.down_first = nn.Conv2d(num_features, 4 * num_latents + 2 * num_features, 3, padding=1)
        self.down_second = nn.Conv2d(num_latents + num_features, num_features, 3, padding=1)
        self.flow = InverseAutoregressiveStep(num_latents, num_features, num_hidden_layers)
        with torch.no_grad():
            for conv, num_parts in ((self.up_first, 2), (self.down_first, 4)):
                conv.weight[: num_parts * num_latents] = 0
                bias_of(conv)[: num_parts * num_latents] = 0

    def up(self, h: Tensor) -> tuple[Tensor, Evidence]:
        """The features for the layer above and the evidence for this one."""
        parts = self.up_first(F.elu(h))
        mean, log_std, context, *rest = parts.split([self.num_latents] * 2 + [self.num_features] * (2 - self.is_top), 1)
        if not self.is_top:
            h = h + RESIDUAL_SCALE * self.up_second(F.elu(rest[0]))
        return h, Evidence(mean, log_std, context)

    def read(self, h: Tensor) -> tuple[DiagonalGaussian, Evidence, Tensor]:
        """From above: prior of z, the way down's share of the evidence, and the deterministic features."""
        latents, features = self.num_latents, self.num_features
        parts = self.down_first(F.elu(h)).split([latents] * 4 + [features] * 2, dim=1)
        prior = DiagonalGaussian.from_network(parts[0], parts[1].clamp(*LOG_STD_RANGE))
        return prior, Evidence(parts[2], parts[3], parts[4]), parts[5]

    def posterior_draw(self, up: Evidence, down: Evidence, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Latents after the flow, made of standard normal noise, and the natural-log density of each coordinate.

        Shapes: all (N, latents, h, w).
        """
        log_std = (up.log_std + down.log_std).clamp(*LOG_STD_RANGE)
        start = DiagonalGaussian.from_network(up.mean + down.mean, log_std)
        u = start.mean + start.log_std.exp() * noise
        z, log_diagonal = self.flow(u, up.context + down.context)
        return z, start.log_density(u) - log_diagonal

    def write(self, h: Tensor, z: Tensor, deterministic: Tensor) -> Tensor:
        """The features for the layer below."""
        return h + RESIDUAL_SCALE * self.down_second(F.elu(torch.cat([z.to(deterministic), deterministic], dim=1)))
