"""What the pixels nearby foretell of a pixel, linearly: its value, and how far off that value will be.

Both are least squares over causal neighbours (rows above, and the same row to the left), fitted in closed form once. A
network that is given its inputs relative to the prediction and in units of the expected error starts where a linear
model ends. Source: context modelling of lossless image codecs, e.g. Wu & Memon (1997), "Context-based, adaptive,
lossless image coding", section III. Differs: least squares over the data set instead of a fixed predictor.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.types import Images, ImageSpec

FIT_CHUNK = 64  # images whose products are summed at once


def causal_offsets(radius: int) -> list[tuple[int, int]]:
    """(rows, columns) of the earlier pixels within a square of this radius, in raster order."""
    square = [(row, column) for row in range(-radius, 1) for column in range(-radius, radius + 1)]
    return [offset for offset in square if offset < (0, 0)]


class LocalPrediction(nn.Module):
    """Works on padded planes: `radius` columns of zeros on either side and as many rows above.

    coefficients: row c says how a residual of channel c follows those of the pixel's earlier channels, (C, C).
    Shapes: x is in [-1, 1] units; padded planes are (N, channels, H + R, W + 2R).
    """

    def __init__(self, spec: ImageSpec, radius: int) -> None:
        super().__init__()
        self.spec, self.radius = spec, radius
        window = (radius + 1, 2 * radius + 1)
        self.predictor = nn.Buffer(torch.zeros(spec.channels, spec.channels + 1, *window))
        self.error_predictor = nn.Buffer(torch.zeros(1, 2, *window))
        self.coefficients = nn.Buffer(torch.zeros(spec.channels, spec.channels))
        self.inside = nn.Buffer(self.pad(torch.ones(1, 1, spec.height, spec.width)), persistent=False)

    def pad(self, planes: Tensor) -> Tensor:
        """Shapes: (N, channels, H, W) -> (N, channels, H + R, W + 2R)."""
        return F.pad(planes, (self.radius, self.radius, self.radius, 0))

    def predict(self, x: Tensor, inside: Tensor) -> Tensor:
        """The expected value of each pixel that has its window in the planes.

        Shapes: padded x (N, C, h + R, w + 2R) and `inside` (1, 1, h + R, w + 2R), of the whole image or of a part of
        it -> (N, C, h, w).
        """
        return F.conv2d(x, self.predictor[:, :-1]) + F.conv2d(inside, self.predictor[:, -1:])

    def scale(self, residual: Tensor, inside: Tensor) -> Tensor:
        """The expected mean over the channels of |x - prediction|, at least half the distance of two levels.

        Shapes: padded residuals (N, C, h + R, w + 2R) and `inside` as in `predict` -> (N, 1, h, w).
        """
        error = residual.abs().mean(dim=1, keepdim=True)
        expected = F.conv2d(error, self.error_predictor[:, :1]) + F.conv2d(inside, self.error_predictor[:, 1:])
        return expected.clamp(min=1 / (self.spec.levels - 1))

    @torch.no_grad()
    def fit(self, images: Images, ridge: float) -> None:
        """Least squares in float64. ridge: penalty on squared weights, in multiples of the number of pixels.

        Shapes: uint8 (N, C, H, W).
        """
        chunks = [unit_from_levels(part, self.spec.levels, torch.float64) for part in images.split(FIT_CHUNK)]
        inside = self.inside.double()
        predictor = _causal_regression((self.pad(x) for x in chunks), inside, self.radius, ridge)
        self.predictor.copy_(predictor)
        mean, intercept = predictor[:, :-1], F.conv2d(inside, predictor[:, -1:])
        residuals = [x - F.conv2d(self.pad(x), mean) - intercept for x in chunks]
        errors = (self.pad(residual.abs().mean(dim=1, keepdim=True)) for residual in residuals)
        self.error_predictor.copy_(_causal_regression(errors, inside, self.radius, ridge))
        rows = [residual.transpose(0, 1).flatten(1) for residual in residuals]
        covariance = torch.stack([row @ row.T for row in rows]).sum(dim=0) / sum(row.shape[1] for row in rows)
        covariance.diagonal().add_(ridge)
        for c in range(1, self.spec.channels):
            self.coefficients[c, :c] = torch.linalg.solve(covariance[:c, :c], covariance[:c, c])

    def num_parameters(self) -> int:
        """Number of fitted values."""
        channels, num_neighbours = self.spec.channels, len(causal_offsets(self.radius))
        predictor = channels * ((channels + 1) * num_neighbours + 1)
        return predictor + 2 * num_neighbours + 1 + channels * (channels - 1) // 2


def _causal_regression(planes: Iterable[Tensor], inside: Tensor, radius: int, ridge: float) -> Tensor:
    """Kernels that predict each plane at a pixel from all planes and the mark of the inside before it.

    The mark at the pixel itself, which is always one, carries the intercept.
    Shapes: padded planes (N, K, H + R, W + 2R) each, inside (1, 1, H + R, W + 2R) -> (K, K + 1, R + 1, 2R + 1).
    """
    window = (radius + 1, 2 * radius + 1)
    totals: list[Tensor] = []
    num_rows, num_planes = 0, 0
    for part in planes:
        both = torch.cat([part, inside.expand(len(part), -1, -1, -1)], dim=1)
        rows = F.unfold(both, window).transpose(1, 2).flatten(0, 1)
        totals.append(rows.T @ rows)
        num_rows, num_planes = num_rows + len(rows), part.shape[1]
    products = torch.stack(totals).sum(dim=0)
    shape = (num_planes + 1, *window)
    is_past = torch.zeros(shape, dtype=torch.bool, device=products.device)
    is_past[:, :-1] = True
    is_past[:, -1, :radius] = True
    is_past[-1, -1, radius] = True
    past, targets = is_past.flatten(), torch.arange(products.shape[0], device=products.device).view(shape)
    penalty = ridge * num_rows * torch.eye(int(past.sum()), dtype=products.dtype, device=products.device)
    right = products[past][:, targets[:-1, -1, radius]]
    kernels = products.new_zeros(num_planes, products.shape[0])
    kernels[:, past] = torch.linalg.solve(products[past][:, past] + penalty, right).T
    return kernels.view(num_planes, *shape)
