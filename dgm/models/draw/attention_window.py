"""Attention by a grid of Gaussian filters: a square glimpse of an image, and a square patch laid onto one.

Source: Gregor et al. (2015), arXiv 1502.04623, section 3.2, equations 19 to 29.
Differs: pixels count from 0; a row of filters is normalised by a softmax, which cannot divide by zero, so that a filter
beyond the border sees the border; logarithms are kept where exp and the gradient are finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_ATTENTION_PARAMETERS = 5  # centre row, centre column, log variance, log stride, log gain
LOG_VARIANCE_RANGE = (-6.0, 9.0)  # of a filter, in pixels^2
LOG_STRIDE_RANGE = (-6.0, 2.0)  # 0: the outermost filters sit on the outermost pixels of the longer side
LOG_GAIN_RANGE = (-8.0, 8.0)


@dataclass(frozen=True)
class AttentionWindow:
    """size x size filters per image. rows (N, size, H), columns (N, size, W), gain (N, 1, 1, 1)."""

    rows: Tensor
    columns: Tensor
    gain: Tensor

    @classmethod
    def from_parameters(cls, parameters: Tensor, size: int, height: int, width: int) -> AttentionWindow:
        """The window that five numbers per image set. Shapes: (N, 5) in float32 or wider."""
        row, column, log_variance, log_stride, log_gain = parameters.unbind(dim=1)
        unit = unit_stride(size, height, width)
        stride = unit * log_stride.clamp(*LOG_STRIDE_RANGE).exp()
        precision = torch.exp(-log_variance.clamp(*LOG_VARIANCE_RANGE))
        rows, columns = (
            filters(0.5 * (length - 1) + 0.5 * (length + 1) * centre, stride, precision, size, length)
            for centre, length in ((row, height), (column, width))
        )
        return cls(rows, columns, log_gain.clamp(*LOG_GAIN_RANGE).exp()[:, None, None, None])

    def read(self, images: Tensor) -> Tensor:
        """The glimpse, without the gain. Shapes: (N, K, H, W) -> (N, K, size, size)."""
        with torch.autocast(images.device.type, enabled=False):  # three digits would be coarser than a level
            return self.rows.unsqueeze(1) @ images @ self.columns.mT.unsqueeze(1)

    def write(self, patch: Tensor) -> Tensor:
        """The patch laid onto an empty image, without the gain. Shapes: (N, K, size, size) -> (N, K, H, W)."""
        with torch.autocast(patch.device.type, enabled=False):
            return self.rows.mT.unsqueeze(1) @ patch @ self.columns.unsqueeze(1)


def filters(centre: Tensor, stride: Tensor, precision: Tensor, size: int, length: int) -> Tensor:
    """Gaussians over `length` pixels, `size` of them `stride` apart around `centre`; each sums to one.

    Shapes: centre, stride, precision (N,) -> (N, size, length).
    """
    places = torch.arange(size, dtype=centre.dtype, device=centre.device) - 0.5 * (size - 1)
    means = centre[:, None] + places * stride[:, None]
    distances = torch.arange(length, dtype=centre.dtype, device=centre.device) - means[:, :, None]
    return torch.softmax(-0.5 * distances**2 * precision[:, None, None], dim=-1)


def unit_stride(size: int, height: int, width: int) -> float:
    """The stride in pixels at which the filters span the longer side, that of log stride 0."""
    return (max(height, width) - 1) / (size - 1)


def parameters_of_cover(size: int, height: int, width: int) -> Tensor:
    """Parameters of a centred window that covers the whole image and, written with its gain, adds up to one.

    Shapes: -> (5,). Filters stand a stride apart that shares out the longer side; their deviation is half of it.
    """
    stride = max(height, width) / size
    log_stride = math.log(stride / unit_stride(size, height, width))
    return torch.tensor([0.0, 0.0, 2 * math.log(0.5 * stride), log_stride, 2 * math.log(stride)])


def parameters_of_tiles(size: int, height: int, width: int, deviation: float) -> Tensor:
    """Parameters of the sharp windows that tile the image, row after row. Shapes: -> ((H / size) * (W / size), 5).

    deviation: of a filter, in pixels; a fraction of a pixel makes a filter see a single pixel.
    Raises: ValueError if windows of this size do not tile the image.
    """
    if height % size or width % size:
        raise ValueError(f"windows of {size} x {size} do not tile {height} x {width}")
    log_stride = -math.log(unit_stride(size, height, width))
    return torch.tensor(
        [
            [*(_offset(top, size, height), _offset(left, size, width)), 2 * math.log(deviation), log_stride, 0.0]
            for top in range(0, height, size)
            for left in range(0, width, size)
        ]
    )


def _offset(start: int, size: int, length: int) -> float:
    """The centre parameter of a window of stride 1 whose first filter is on pixel `start`."""
    return (start + 0.5 * (size - 1) - 0.5 * (length - 1)) / (0.5 * (length + 1))
