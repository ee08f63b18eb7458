"""A linear predictor of each pixel from the pixels before it, taken out of the data by an affine, invertible map.

What is left for a model to learn has mean zero, covariance one and no linear dependence on the neighbourhood.
Source: Theis & Bethge (2015), arXiv 1506.03478, section 2.2 and the authors' code (conditional whitening).
Differs: pixels at the border have their own predictor, one for each set of neighbours that the image still holds.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.types import ImageSpec

# added to variances, in grey levels squared: well below the 1/12 of dequantization noise
RIDGE = 1e-3


class ConditionalWhitening(nn.Module):
    """(features, z, log |det|) of an image in grey levels; z = W (y - A features - b) is the whitened pixel.

    A neighbour outside of the image reads as mid-grey, and its indicator is 0 instead of 1.
    """

    def __init__(self, spec: ImageSpec, rows: int, reach: int) -> None:
        super().__init__()
        self.spec, self.rows, self.reach = spec, rows, reach
        self.num_neighbours = rows * (2 * reach + 1) + reach
        self.num_inputs = spec.channels * self.num_neighbours
        self.num_features = self.num_inputs + self.num_neighbours
        indicators = self._neighbours(torch.zeros(1, *spec.shape, device="cpu"))[:, 0, self.num_inputs :]
        classes, class_of_pixel = indicators.unique(dim=0, return_inverse=True)
        self.class_of_pixel = nn.Buffer(class_of_pixel, persistent=False)
        spread = 4 / spec.levels
        self.input_mean = nn.Buffer(torch.zeros(self.num_inputs))
        self.input_transform = nn.Buffer(spread * torch.eye(self.num_inputs))
        self.predictor = nn.Buffer(torch.zeros(len(classes), self.num_inputs, spec.channels))
        self.offset = nn.Buffer(torch.zeros(len(classes), 1, spec.channels))
        self.factor = nn.Buffer(spread * torch.eye(spec.channels).repeat(len(classes), 1, 1))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Least squares and covariances, in float64. Shapes: each batch (N, C, H, W), dequantized grey levels."""
        size = self.num_inputs + 1 + self.spec.channels
        moments = torch.zeros(len(self.factor), size, size, dtype=torch.float64, device=self.factor.device)
        for x in batches:
            neighbours = self._neighbours(x.double())[..., : self.num_inputs]
            rows = torch.cat([neighbours, torch.ones_like(neighbours[..., :1]), self._pixels(x.double())], dim=-1)
            moments.index_add_(0, self.class_of_pixel, rows.transpose(1, 2) @ rows)
        inputs, given = slice(0, self.num_inputs), slice(0, self.num_inputs + 1)
        for number, total in enumerate(moments):
            mean = total / total[self.num_inputs, self.num_inputs]
            ridge = RIDGE * torch.eye(size, dtype=mean.dtype, device=mean.device)
            ridge[self.num_inputs, self.num_inputs] = 0
            target = slice(self.num_inputs + 1, size)
            coefficients = torch.linalg.solve((mean + ridge)[given, given], mean[given, target])
            # the covariance of what is left, from the moments: (-B, I)' M (-B, I)
            left = torch.cat([-coefficients, torch.eye(self.spec.channels).to(mean)])
            residual = left.T @ mean @ left + ridge[target, target]
            self.predictor[number], self.offset[number] = coefficients[inputs], coefficients[self.num_inputs]
            self.factor[number] = torch.linalg.inv(torch.linalg.cholesky(residual))
        pooled = moments.sum(dim=0) / moments[:, self.num_inputs, self.num_inputs].sum()
        mean = pooled[self.num_inputs, inputs]
        values, vectors = torch.linalg.eigh(pooled[inputs, inputs] - torch.outer(mean, mean))
        self.input_mean.copy_(mean)
        self.input_transform.copy_(vectors @ torch.diag((values.clamp(min=0) + RIDGE).rsqrt()) @ vectors.T)

    def num_parameters(self) -> int:
        """Number of fitted values; all of them are saved buffers."""
        return sum(values.numel() for values in self.state_dict().values())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes: x (N, C, H, W), grey levels -> features (P, N, F), z (P, N, C), log |det dz/dx| float64 ()."""
        neighbours = self._neighbours(x)
        prediction = neighbours[..., : self.num_inputs] @ self.predictor[self.class_of_pixel]
        residual = self._pixels(x) - prediction - self.offset[self.class_of_pixel]
        z = residual @ self.factor[self.class_of_pixel].transpose(1, 2)
        return self._features(neighbours), z, self._log_determinant()

    def at_pixel(self, window: Tensor, pixel: int) -> tuple[Tensor, Tensor]:
        """The features of one pixel and its predicted value. Shapes: window (N, C + 1, K) -> (N, F), (N, C)."""
        neighbours = window[..., : self.num_neighbours].flatten(1)
        kind = int(self.class_of_pixel[pixel])
        centre = self.spec.levels / 2
        prediction = neighbours[:, : self.num_inputs] @ self.predictor[kind] + self.offset[kind] + centre
        return self._features(neighbours), prediction

    def color(self, z: Tensor, pixel: int) -> Tensor:
        """The deviation from the prediction that z stands for, in grey levels. Shapes: (N, C) -> (N, C)."""
        factor = self.factor[int(self.class_of_pixel[pixel])]
        return torch.linalg.solve_triangular(factor, z.T, upper=False).T

    def padded(self, x: Tensor) -> Tensor:
        """Centred grey levels and the indicator, with room for every neighbour. Shapes: -> (N, C + 1, H', W')."""
        inside = torch.ones_like(x[:, :1])
        return F.pad(torch.cat([x - self.spec.levels / 2, inside], dim=1), (self.reach, self.reach, self.rows, 0))

    def _neighbours(self, x: Tensor) -> Tensor:
        """Values, channel by channel, then indicators. Shapes: (N, C, H, W) -> (P, N, F)."""
        windows = F.unfold(self.padded(x), (self.rows + 1, 2 * self.reach + 1))
        windows = windows.unflatten(1, (self.spec.channels + 1, -1))[:, :, : self.num_neighbours]
        return windows.flatten(1, 2).permute(2, 0, 1)

    def _pixels(self, x: Tensor) -> Tensor:
        return (x - self.spec.levels / 2).flatten(2).permute(2, 0, 1)

    def _features(self, neighbours: Tensor) -> Tensor:
        values = (neighbours[..., : self.num_inputs] - self.input_mean) @ self.input_transform
        return torch.cat([values, neighbours[..., self.num_inputs :]], dim=-1)

    def _log_determinant(self) -> Tensor:
        diagonals = self.factor.diagonal(dim1=1, dim2=2).double().log().sum(dim=1)
        return diagonals[self.class_of_pixel].sum()
