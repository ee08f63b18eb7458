"""Linear least squares on the causal neighbourhood of a pixel, as a convolution kernel.

Rows above and what is to the left in the same row, within a radius; outside the image everything is zero, and a plane
that is one inside lets the intercept adapt there.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_kernels(examples: Iterable[tuple[Tensor, Tensor]], radius: int, ridge: float, sees_earlier: bool) -> Tensor:
    """Kernels of the targets at a pixel, of which the planes' pixels before it are known, and the last plane's own.

    examples: planes (N, P, H, W), the last of them ones, and targets (N, T, H, W); sums are in float64. sees_earlier:
    the target of channel c also sees planes 0 to c - 1 of its own pixel. ridge: penalty on squared weights, in
    multiples of the number of pixels. Shapes: -> float64 (T, P, R + 1, 2R + 1).
    """
    window = (radius + 1, 2 * radius + 1)
    products, right, num_rows = 0.0, 0.0, 0
    num_planes, num_targets = 0, 0
    for planes, target in examples:
        num_planes, num_targets = planes.shape[1], target.shape[1]
        rows = F.unfold(causal_pad(planes, radius), window).transpose(1, 2).flatten(0, 1)
        products = products + (rows.T @ rows).double()
        right = right + (target.movedim(1, -1).flatten(0, -2).T @ rows).double()
        num_rows += len(rows)
    if not isinstance(products, Tensor) or not isinstance(right, Tensor):
        raise ValueError("no examples to fit to")
    is_known = torch.zeros(num_planes, *window, dtype=torch.bool, device=products.device)
    is_known[:, :-1] = True
    is_known[:, -1, :radius] = True
    is_known[-1, -1, radius] = True  # the intercept
    kernels = products.new_zeros(num_targets, *is_known.shape)
    for c in range(num_targets):
        known = is_known.flatten()
        penalty = ridge * num_rows * torch.eye(int(known.sum()), dtype=products.dtype, device=products.device)
        kernels[c][is_known] = torch.linalg.solve(products[known][:, known] + penalty, right[c, known])
        if sees_earlier:
            is_known[c, -1, radius] = True  # the next targets may look at this plane
    return kernels


def causal_pad(planes: Tensor, radius: int) -> Tensor:
    """Zeros above, on the left and on the right. Shapes: (N, P, H, W) -> (N, P, H + R, W + 2R)."""
    return F.pad(planes, (radius, radius, radius, 0))


def with_inside(planes: Tensor) -> Tensor:
    """One more plane, of ones. Shapes: (N, P, H, W) -> (N, P + 1, H, W)."""
    return torch.cat([planes, torch.ones_like(planes[:, :1])], dim=1)
