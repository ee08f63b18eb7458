"""Images as sequences of sub-pixels: raster order, the channels of a pixel one after the other.

The previous sub-pixel is what a sequence model reads, so the shift by one place lives here and nowhere else:
position t reads the value of position t - 1, and position 0 a start symbol that no sub-pixel can have.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgm.types import Images, ImageSpec


def in_raster_order(images: Images) -> Tensor:
    """Values in raster order. Shapes: (N, C, H, W) -> (N, T) uint8, T = H * W * C."""
    return images.permute(0, 2, 3, 1).flatten(1)


def to_sequence(images: Images) -> Tensor:
    """Values in raster order, as indices. Shapes: (N, C, H, W) -> (N, T) int64."""
    return in_raster_order(images).long()


def from_sequence(x: Tensor, spec: ImageSpec) -> Tensor:
    """The inverse of to_sequence, for any trailing axes. Shapes: (N, T, ...) -> (N, C, H, W, ...)."""
    trailing = x.shape[2:]
    x = x.reshape(len(x), spec.height, spec.width, spec.channels, *trailing)
    return x.movedim(3, 1)


def shifted(values: Tensor, spec: ImageSpec) -> Tensor:
    """The value before each position, `levels` at the start. Shapes: (N, T) -> (N, T)."""
    return torch.cat([torch.full_like(values[:, :1], spec.levels), values[:, :-1]], dim=1)


class SubpixelEmbedding(nn.Module):
    """Features of the previous sub-pixel: a table of values, a line through the scaled value, a table of channels.

    The line lets a short training see that 17 is close to 18; the channel is a function of the position alone.
    """

    def __init__(self, spec: ImageSpec, num_features: int) -> None:
        super().__init__()
        self.spec = spec
        self.value = nn.Embedding(spec.levels + 1, num_features)
        self.channel = nn.Embedding(spec.channels, num_features)
        self.slope = nn.Parameter(torch.randn(num_features))
        nn.init.normal_(self.value.weight, std=0.1)
        nn.init.normal_(self.channel.weight, std=0.5)

    def table(self) -> Tensor:
        """Features of each value, the start symbol last. Shapes: -> (levels + 1, F)."""
        levels = self.spec.levels
        scaled = torch.linspace(-1, 1, levels, dtype=self.slope.dtype, device=self.slope.device)
        scaled = torch.cat([scaled, scaled.new_zeros(1)])
        return self.value.weight + scaled.unsqueeze(-1) * self.slope

    def forward(self, previous: Tensor) -> Tensor:
        """Shapes: (N, T) int64 from `shifted`, T whole pixels -> (N, T, F)."""
        num_pixels = previous.shape[1] // self.spec.channels
        return nn.functional.embedding(previous, self.table()) + self.channel.weight.repeat(num_pixels, 1)
