"""The shortened middle: an image as a grid of blocks, one token a block, and attention between all of them.

A pixel may only learn of blocks that lie wholly before it, in raster order, whatever its place in its own block: those
in the bands of blocks above. So each token holds the block above its own, and attends to tokens of its own band and of
the bands above; within a band it may look to the right.
Source: Nawrot et al. (2022), arXiv 2110.13711 (shortening, and the shift that keeps it causal); Dehghani et al. (2023),
arXiv 2302.05442 (normalised queries and keys); Shazeer (2020), arXiv 2002.05202 (gated linear units).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.nets.layer_list import LayerList

INITIAL_SHARPNESS = 3.0  # of attention: the logits' range, as queries and keys have unit mean square


def matrix(num_in: int, num_out: int, gain: float = 1.0) -> nn.Parameter:
    """A weight that keeps the mean square of what it is applied to, times gain^2. Shapes: -> (out, in)."""
    return nn.Parameter(torch.randn(num_out, num_in) * (gain / math.sqrt(num_in)))


def normalized(x: Tensor) -> Tensor:
    """Mean zero and variance one over the last axis (Ba, Kiros & Hinton 2016, arXiv 1607.06450, without gains)."""
    return F.layer_norm(x, x.shape[-1:])


class MiddleLayer(nn.Module):
    """Attention, then a gated linear unit, each added to its normalised input. Shapes: (N, tokens, D) unchanged."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.queries_keys_values = matrix(width, 3 * width)
        self.mix = matrix(width, width, 0.1)
        self.up = matrix(width, 4 * width)
        self.down = matrix(2 * width, width, 0.1)
        self.sharpness = nn.Parameter(torch.full((num_heads, 1, 1), INITIAL_SHARPNESS))

    def forward(self, x: Tensor, may_attend: Tensor) -> Tensor:
        """may_attend: bool (tokens, tokens), of a token's row to the columns."""
        heads = F.linear(normalized(x), self.queries_keys_values).unflatten(-1, (3, self.num_heads, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        queries = normalized(queries) * self.sharpness
        attended = F.scaled_dot_product_attention(queries, normalized(keys), values, attn_mask=may_attend)
        x = x + F.linear(attended.transpose(1, 2).flatten(2), self.mix)
        return x + F.linear(F.glu(F.linear(normalized(x), self.up), dim=-1), self.down)


class Middle(nn.Module):
    """What the pixels of each block learn of the bands of blocks above. Shapes: (N, H, W, in) -> (N, rows, columns, D).

    shortening: side of a block, in pixels. The blocks at the right and lower border may be parts.
    """

    def __init__(
        self, in_channels: int, size: tuple[int, int], shortening: int, features: int, num_layers: int, num_heads: int
    ) -> None:
        super().__init__()
        height, width = size
        self.shortening = shortening
        self.rows, self.columns = -(-height // shortening), -(-width // shortening)
        self.fill = (0, self.columns * shortening - width, 0, self.rows * shortening - height)
        self.embedding = matrix(shortening**2 * in_channels, features)
        self.embedding_of_place = nn.Parameter(0.02 * torch.randn(self.rows, self.columns, features))
        self.layers = LayerList(MiddleLayer(features, num_heads) for _ in range(num_layers))
        band = torch.arange(self.rows).repeat_interleave(self.columns)
        self.may_attend = nn.Buffer(band[:, None] >= band, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        side = self.shortening
        blocks = F.pixel_unshuffle(F.pad(x.permute(0, 3, 1, 2), self.fill), side).permute(0, 2, 3, 1)
        above = F.pad(blocks[:, :-1], (0, 0, 0, 0, 1, 0))
        tokens = (F.linear(above, self.embedding) + self.embedding_of_place).flatten(1, 2)
        for layer in self.layers:
            tokens = layer(tokens, self.may_attend)
        return normalized(tokens).unflatten(1, (self.rows, self.columns))
