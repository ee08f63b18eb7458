"""Convolutions that see only the past: raster order over pixels, R then G then B inside each pixel.

Every feature carries a degree, the channel whose conditional it may serve: a feature of degree d sees all earlier
pixels and, of its own pixel, the channels before d (mask A) or features up to degree d (mask B).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.types import ImageSpec


def input_degrees(spec: ImageSpec) -> Tensor:
    """Degree of each image channel: its own index. Shapes: -> int64 (C,)."""
    return torch.arange(spec.channels)


def feature_degrees(num_features: int, spec: ImageSpec, num_parts: int = 1) -> Tensor:
    """Degree of each feature: its index modulo the number of channels. Shapes: -> int64 (num_parts * num_features,).

    A layer that emits `num_parts` stacked groups (value and gate; the gates of an LSTM) starts each group at degree 0
    again, so that what is multiplied together later has one degree even if C does not divide `num_features`.
    """
    return (torch.arange(num_features) % spec.channels).repeat(num_parts)


def logit_degrees(spec: ImageSpec) -> Tensor:
    """Degree of each logit when the last axis is (C, levels) flattened. Shapes: -> int64 (C * levels,)."""
    return torch.arange(spec.channels).repeat_interleave(spec.levels)


def degree_mask(in_degrees: Tensor, out_degrees: Tensor, kind: Literal["A", "B"]) -> Tensor:
    """Which input may feed which output inside one pixel. Shapes: (I,), (O,) -> bool (O, I)."""
    if kind == "A":
        return out_degrees[:, None] > in_degrees
    return out_degrees[:, None] >= in_degrees


class MaskedConv2d(nn.Module):
    """A convolution with the whole kernel stored, of which only the causal part is computed.

    Shapes: (N, I, H, W) -> (N, O, H, W). `masked_weight()` is (O, I, kh // 2 + 1, kw), or (O, I, 1, kw // 2 + 1) for
    kernels of one row; its last row (last tap) is the current row (pixel).
    Raises: ValueError if a side of the kernel is even: it would have no centre.
    Source: van den Oord et al. (2016), arXiv 1601.06759, sections 3.4 and 3.5.
    Differs: the mask multiplies in the graph, and rows below the centre are cropped before the convolution.
    """

    def __init__(
        self, in_degrees: Tensor, out_degrees: Tensor, kernel_size: tuple[int, int], kind: Literal["A", "B"]
    ) -> None:
        super().__init__()
        height, width = kernel_size
        if height % 2 == 0 or width % 2 == 0:
            raise ValueError(f"kernel {height}x{width}: both sides must be odd")
        full = nn.Conv2d(len(in_degrees), len(out_degrees), kernel_size)
        self.weight = full.weight
        self.bias = nn.Parameter(torch.zeros(len(out_degrees)))
        self.top, self.left = height // 2, width // 2
        self.right = 0 if height == 1 else self.left
        mask = torch.ones(len(out_degrees), len(in_degrees), self.top + 1, self.left + 1 + self.right)
        mask[:, :, -1, self.left + 1 :] = 0
        mask[:, :, -1, self.left] = degree_mask(in_degrees, out_degrees, kind).to(mask.dtype)
        self.mask = nn.Buffer(mask, persistent=False)
        with torch.no_grad():  # the variance that the causal part alone would have been given
            self.weight *= (mask[0].numel() / mask.sum(dim=(1, 2, 3)).clamp(min=1)).sqrt().view(-1, 1, 1, 1)

    def masked_weight(self) -> Tensor:
        """The causal part of the kernel, zero where the mask forbids. Shapes: -> as `mask`."""
        return self.weight[:, :, : self.top + 1, : self.left + 1 + self.right] * self.mask

    def idle_weights(self) -> dict[str, Tensor]:
        """What the mask forbids, and the rows below the centre. Shapes: -> bool, as `weight`."""
        idle = torch.ones_like(self.weight, dtype=torch.bool)
        idle[:, :, : self.top + 1, : self.left + 1 + self.right] = self.mask == 0
        return {"weight": idle}

    def forward(self, x: Tensor) -> Tensor:
        if self.top or self.left:
            x = F.pad(x, (self.left, self.right, self.top, 0))
        return F.conv2d(x, self.masked_weight(), self.bias)
