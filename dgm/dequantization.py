"""Uniform dequantization: the one place where integers become reals and back.

A density p on [0, levels)^D gives a lower bound on the discrete likelihood of v, by Jensen:
E_u[log p(v + u)] <= log of the integral of p over the cell [v, v+1)^D, u uniform on [0, 1)^D.
Source: Theis, van den Oord & Bethge (2016), arXiv 1511.01844, section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgm.types import Images, ImageSpec


def dequantize(images: Images, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """v + u in grey-level units, inside [v, v + 1). Shapes: (N, C, H, W) -> (N, C, H, W)."""
    # drawn in float64: in float32, 255 + u can round up to 256, out of the cell
    noise = torch.rand(images.shape, generator=generator, device=images.device, dtype=torch.float64)
    x = images.to(torch.float64) + noise
    if dtype == torch.float64:
        return x
    low = images.to(dtype)
    return torch.minimum(x.to(dtype), torch.nextafter(low + 1, low))


def quantize(x: Tensor, spec: ImageSpec) -> Images:
    """The level whose cell holds x; values outside [0, levels) go to the nearest level. Shapes: unchanged."""
    return x.floor().clamp(0, spec.levels - 1).to(torch.uint8)
