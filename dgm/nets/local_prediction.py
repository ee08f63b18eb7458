"""What the pixels nearby foretell of a pixel, linearly: its value, and how far off that value will be.

Both are least squares over causal neighbours (rows above, and the same row to the left), fitted in closed form once. A
network that is given its inputs relative to the prediction and in units of the expected error starts where a linear
model ends. Source: context modelling of lossless image codecs, e.g. Wu & Memon (1997), "Context-based, adaptive,
lossless image coding", section III. Differs: least squares over the data set instead of a fixed predictor.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.nets.causal_kernels import causal_kernels, causal_pad, with_inside
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
        return causal_pad(planes, self.radius)

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
        predictor = causal_kernels(((with_inside(x), x) for x in chunks), self.radius, ridge, sees_earlier=False)
        self.predictor.copy_(predictor)
        residuals = [x - F.conv2d(self.pad(with_inside(x)), predictor) for x in chunks]
        errors = (residual.abs().mean(dim=1, keepdim=True) for residual in residuals)
        examples = ((with_inside(error), error) for error in errors)
        self.error_predictor.copy_(causal_kernels(examples, self.radius, ridge, sees_earlier=False))
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
