"""What the network is told of the pixels nearby: relative to a linear prediction, in units of its expected error.

Inputs of this kind are alike for dark and bright, flat and busy places, so that few images teach much. Rows and columns
outside the image count as zeros and are marked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.nets.local_prediction import LocalPrediction, causal_offsets
from dgm.types import Images, ImageSpec

MAX_INPUT = 12.0
WIDE_ROWS, WIDE_COLUMNS = 8, 17  # of the area above a pixel whose mean error is an input
LEAST_PIXELS = 1.0  # that the means of few errors are drawn to: LEAST_ERROR stands for so many more pixels
LEAST_ERROR = 0.05
TYPICAL_LOG_SCALE = -3.4
LEAST_VARIANCE = 1e-3  # that an axis of the inputs is taken to have when they are whitened
FIT_PART, FIT_STRIDE = 50, 5  # of the covariance: images at a time, of whose pixels every fifth counts


@dataclass(frozen=True)
class Planes:
    """Everything known of whole images, channels last.

    near: values, residuals and the mark of the inside, padded, (N, H + R, W + 2R, 2C + 1). here: predictions (C), the
    scale, the logarithms of the mean errors above, (N, H, W, C + 3). x: (N, H, W, C).
    """

    near: Tensor
    here: Tensor
    x: Tensor

    def crop(self, rows: Tensor, columns: Tensor) -> Planes:
        """Of each image the part at these successive rows (N, h) and columns (N, w), with its margins."""
        radius = (self.near.shape[2] - self.here.shape[2]) // 2
        image = torch.arange(len(rows), device=rows.device)[:, None, None]
        after = torch.arange(1, 2 * radius + 1, device=rows.device)
        near_rows = torch.cat([rows, rows[:, -1:] + after[:radius]], dim=1).unsqueeze(2)
        near_columns = torch.cat([columns, columns[:, -1:] + after], dim=1).unsqueeze(1)
        inner = (image, rows.unsqueeze(2), columns.unsqueeze(1))
        return Planes(self.near[image, near_rows, near_columns], self.here[inner], self.x[inner])

    def at(self, row: int, column: int) -> Planes:
        """The part that holds one pixel."""
        radius = (self.near.shape[2] - self.here.shape[2]) // 2
        near = self.near[:, row : row + radius + 1, column : column + 2 * radius + 1]
        return Planes(near, *(plane[:, row : row + 1, column : column + 1] for plane in (self.here, self.x)))


class LocalInputs(nn.Module):
    """The inputs of each pixel from those above and to the left: within `radius` the values, within `residual_radius`
    the errors of their predictions; then marks of the border, the scale, and over it mean errors of larger areas above.

    Neighbours say nearly the same, and an optimizer would be slow to find what sets them apart: weights on the inputs
    are products of a learned one and `whitening`, which makes the inputs' covariance nearly the identity.
    """

    def __init__(self, spec: ImageSpec, radius: int, residual_radius: int) -> None:
        super().__init__()
        self.spec, self.radius = spec, radius
        self.prediction = LocalPrediction(spec, radius)
        offsets = causal_offsets(radius)
        near = [i for i, (row, column) in enumerate(offsets) if max(-row, abs(column)) <= residual_radius]
        steps = range(1, radius + 1)
        border = [(0, -step) for step in steps] + [(-step, 0) for step in steps] + [(-1, step) for step in steps]
        self.near = nn.Buffer(torch.tensor(near), persistent=False)
        self.border = nn.Buffer(torch.tensor([offsets.index(offset) for offset in border]), persistent=False)
        self.num_neighbours = len(offsets)
        num_residuals = 2 * len(near) * spec.channels
        self.num_inputs = len(offsets) * spec.channels + num_residuals + len(border) + 3
        self.whitening = nn.Buffer(torch.eye(self.num_inputs))

    @torch.no_grad()
    def fit(self, images: Images, ridge: float) -> None:
        """The linear prediction, with its penalty, and the whitening of the inputs."""
        self.prediction.fit(images, ridge)
        parts = (self(self.planes(part)).flatten(0, 2)[::FIT_STRIDE].double() for part in images.split(FIT_PART))
        totals = [(len(rows), rows.sum(dim=0), rows.T @ rows) for rows in parts]
        num_rows, mean = sum(num for num, _, _ in totals), torch.stack([total for _, total, _ in totals]).sum(dim=0)
        mean = mean / num_rows
        covariance = torch.stack([products for _, _, products in totals]).sum(dim=0) / num_rows - mean.outer(mean)
        variances, axes = torch.linalg.eigh(covariance)
        self.whitening.copy_((axes * (variances.clamp(min=0) + LEAST_VARIANCE).rsqrt()) @ axes.T)

    def planes(self, images: Images) -> Planes:
        """In float32 or wider: half precision is coarser than a level. Shapes: uint8 (N, C, H, W)."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self._planes(images)

    def _planes(self, images: Images) -> Planes:
        local = self.prediction
        x = unit_from_levels(images, self.spec.levels, local.predictor.dtype)
        padded = local.pad(x)
        predicted = local.predict(padded, local.inside)
        residual = x - predicted
        padded_residual = local.pad(residual)
        scale = local.scale(padded_residual, local.inside)
        wide = self._mean_errors_above(residual.abs().mean(dim=1, keepdim=True)) / scale
        near = torch.cat([padded, padded_residual, local.inside.expand(len(x), -1, -1, -1)], dim=1)
        here = torch.cat([predicted, scale, wide.log()], dim=1)
        return Planes(*(plane.permute(0, 2, 3, 1).contiguous() for plane in (near, here, x)))

    def blank(self, num_images: int) -> Planes:
        """The planes of images of which nothing is known yet; `begin_pixel` and `push` fill them in raster order."""
        spec, mark = self.spec, self.prediction.inside.permute(0, 2, 3, 1)
        near = torch.cat([mark.new_zeros(*mark.shape[:3], 2 * spec.channels), mark], dim=-1)
        here, x = (mark.new_ones(num_images, spec.height, spec.width, n) for n in (spec.channels + 3, spec.channels))
        return Planes(near.repeat(num_images, 1, 1, 1), here, x)

    def mean_errors_above(self, planes: Planes, row: int) -> Tensor:
        """Of the rows above `row`, near and all. Shapes: -> (N, W, 2)."""
        channels, radius, width = self.spec.channels, self.radius, self.spec.width
        residual = planes.near[:, radius:, radius : radius + width, channels : 2 * channels]
        return self._mean_errors_above(residual.abs().mean(dim=-1).unsqueeze(1))[:, :, row].transpose(1, 2)

    def begin_pixel(self, planes: Planes, row: int, column: int, mean_errors: Tensor) -> None:
        """Writes what the pixels before this one say of it. Shapes: mean errors above it (N, 2)."""
        channels = self.spec.channels
        near = planes.at(row, column).near.permute(0, 3, 1, 2)
        x, residual, inside = near.split([channels, channels, 1], dim=1)
        predicted = self.prediction.predict(x, inside[:1])[..., 0, 0]
        scale = self.prediction.scale(residual, inside[:1])[..., 0, 0]
        planes.here[:, row, column] = torch.cat([predicted, scale, (mean_errors / scale).log()], dim=1)

    def push(self, planes: Planes, row: int, column: int, x: Tensor) -> None:
        """Fixes a pixel. Shapes: (N, C)."""
        residual = x - planes.here[:, row, column, : self.spec.channels]
        planes.x[:, row, column] = x
        planes.near[:, self.radius + row, self.radius + column, :-1] = torch.cat([x, residual], dim=1)

    def _mean_errors_above(self, error: Tensor) -> Tensor:
        """Of the rows above, near and all. Shapes: (N, 1, H, W) -> (N, 2, H, W)."""
        both = torch.cat([error, torch.ones_like(error[:1])])
        above = F.pad(both, (0, 0, 1, -1)).cumsum(dim=2)
        rows = above - F.pad(above, (0, 0, WIDE_ROWS, 0))[:, :, : error.shape[2]]
        side = WIDE_COLUMNS // 2
        columns = F.pad(rows, (side + 1, side)).cumsum(dim=3)
        near = columns[..., WIDE_COLUMNS:] - columns[..., :-WIDE_COLUMNS]
        everywhere = above.sum(dim=3, keepdim=True).expand_as(above)
        sums = torch.cat([near, everywhere], dim=1)
        return (sums[:-1] + LEAST_ERROR * LEAST_PIXELS) / (sums[-1:] + LEAST_PIXELS)

    def forward(self, planes: Planes) -> Tensor:
        """Shapes: planes of (N, H, W) pixels -> (N, H, W, num_inputs), the scaled values of neighbours first."""
        channels, radius = self.spec.channels, self.radius
        windows = planes.near.unfold(1, radius + 1, 1).unfold(2, 2 * radius + 1, 1).permute(0, 1, 2, 4, 5, 3)
        pixels = windows.flatten(3, 4)[..., : self.num_neighbours, :]
        predicted, scale, wide = planes.here.split([channels, 1, 2], dim=-1)
        inverse = scale.reciprocal()
        values = (pixels[..., :channels] - predicted.unsqueeze(-2)) * inverse.unsqueeze(-1)
        residuals = pixels[..., channels : 2 * channels].index_select(3, self.near) * inverse.unsqueeze(-1)
        outside = pixels[..., -1].index_select(3, self.border) - 1
        spread = 0.5 * (scale.log() - TYPICAL_LOG_SCALE)
        parts = [values.flatten(3), residuals.flatten(3), residuals.abs().flatten(3) - 1, outside, spread, wide]
        return torch.cat(parts, dim=-1).clamp_(-MAX_INPUT, MAX_INPUT)
