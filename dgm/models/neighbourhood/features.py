"""What the network reads of a pixel: its neighbours, relative to the prediction and in units of the expected error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dgm.nets.local_prediction import causal_offsets
from dgm.types import ImageSpec

MAX_FEATURE = 12.0  # in units of the expected error, to either side
TYPICAL_LOG_SCALE = -3.4  # four grey levels of 256


@dataclass(frozen=True)
class Planes:
    """Everything about some images that features are made of. Cached conditionals fill it pixel by pixel.

    Shapes: x and residual padded, (N, C, H + R, W + 2R); prediction (N, C, H, W); scale (N, 1, H, W); above
    (N, 2, H, W), the mean errors of the rows above each pixel.
    """

    x: Tensor
    residual: Tensor
    prediction: Tensor
    scale: Tensor
    above: Tensor


@dataclass(frozen=True)
class Pixels:
    """The features of P pixels, and what their distributions are relative to.

    Shapes: features (P, F), the first C * K of them the scaled neighbours; x, prediction (C, P); scale (P,).
    """

    features: Tensor
    x: Tensor
    prediction: Tensor
    scale: Tensor


class NeighbourFeatures(nn.Module):
    """Scaled neighbours, scaled residuals and their sizes nearby, marks of the image's border, and three logarithms:
    of the scale, and of the errors in the rows above."""

    def __init__(self, spec: ImageSpec, radius: int, residual_radius: int, error_rows: int, error_reach: int) -> None:
        super().__init__()
        self.spec = spec
        offsets = causal_offsets(radius)
        near = [number for number, offset in enumerate(offsets) if max(map(abs, offset)) <= residual_radius]
        self.num_neighbours = len(offsets) * spec.channels
        self.num_features = self.num_neighbours + 2 * len(near) * spec.channels + 3 * radius + 3
        padded_width = spec.width + 2 * radius
        self.plane_size = (spec.height + radius) * padded_width
        row, column = torch.arange(spec.height).view(-1, 1), torch.arange(spec.width).view(1, -1)
        place = ((row + radius) * padded_width + column + radius).flatten()
        steps = torch.tensor([rows * padded_width + columns for rows, columns in offsets])
        self.place = nn.Buffer(place, persistent=False)
        self.steps = nn.Buffer(steps, persistent=False)
        self.near_steps = nn.Buffer(steps[near], persistent=False)
        is_inside = [
            ((row + rows >= 0) & (column + columns >= 0) & (column + columns < spec.width)).flatten()
            for rows, columns in offsets
        ]
        self.is_inside = nn.Buffer(torch.stack(is_inside, dim=1).float(), persistent=False)
        straight = [n for n, (rows, columns) in enumerate(offsets) if columns == 0 or rows == 0]
        level_right = [
            (column + step < spec.width).expand(spec.height, -1).flatten().float() for step in range(1, radius + 1)
        ]
        border = torch.cat([self.is_inside[:, straight], torch.stack(level_right, dim=1)], dim=1) - 1
        self.border = nn.Buffer(border, persistent=False)
        lag, distance = row - row.T, (column - column.T).abs()
        self.near_rows = nn.Buffer(_shares((lag > 0) & (lag <= error_rows)), persistent=False)
        self.all_rows = nn.Buffer(_shares(lag > 0), persistent=False)
        self.near_columns = nn.Buffer(_shares(distance <= error_reach).T.contiguous(), persistent=False)

    def errors_above(self, residual: Tensor) -> Tensor:
        """Mean errors of the nearest rows above, some columns to either side, and of all rows above; 0 at the top.

        Shapes: (N, C, H, W) -> (N, 2, H, W).
        """
        error = residual.abs().mean(dim=1)
        nearby = self.near_rows @ error @ self.near_columns
        everything = (self.all_rows @ error).mean(dim=-1, keepdim=True)
        return torch.stack([nearby, everything.expand_as(nearby)], dim=1)

    def forward(self, planes: Planes, image: Tensor, pixel: Tensor) -> Pixels:
        """Shapes: number of the image (P,) and of the pixel in raster order (P,) -> P pixels."""
        channels, num_pixels = self.spec.channels, self.spec.num_pixels
        channel = torch.arange(channels, device=pixel.device)
        plane = image.unsqueeze(1) * channels + channel
        padded = plane * self.plane_size + self.place[pixel].unsqueeze(1)
        prediction = planes.prediction.flatten()[plane * num_pixels + pixel.unsqueeze(1)]
        scale = planes.scale.flatten()[image * num_pixels + pixel].unsqueeze(1)
        inverse = 1 / scale
        neighbours = planes.x.flatten()[padded.unsqueeze(2) + self.steps].sub_(prediction.unsqueeze(2))
        neighbours.mul_(self.is_inside[pixel].mul_(inverse).unsqueeze(1))
        residuals = planes.residual.flatten()[padded.unsqueeze(2) + self.near_steps].mul_(inverse.unsqueeze(2))
        above = planes.above.flatten(2)[image, :, pixel]
        above = torch.where(above > 0, above * inverse, 1.0)
        logarithms = torch.cat([0.5 * (scale.log() - TYPICAL_LOG_SCALE), above.log()], dim=1)
        parts = [neighbours.flatten(1), residuals.flatten(1), residuals.abs().sub_(1).flatten(1)]
        features = torch.cat([*parts, self.border[pixel], logarithms], dim=1).clamp_(-MAX_FEATURE, MAX_FEATURE)
        return Pixels(features, planes.x.flatten()[padded].T, prediction.T, scale.squeeze(1))


def _shares(is_in: Tensor) -> Tensor:
    """Rows that average over what is in, or are zero where nothing is. Shapes: bool (K, L) -> (K, L)."""
    return is_in / is_in.sum(dim=1, keepdim=True).clamp(min=1)
