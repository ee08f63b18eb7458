"""The neighbourhood network pixel by pixel: what is known fills the padded planes, the network runs once a pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dgm.distributions.logistic_mixture import LogisticMixture
from dgm.models.neighbourhood.features import Planes
from dgm.nets.mixture_conditionals import MixtureConditionals

if TYPE_CHECKING:
    from dgm.models.neighbourhood.model import Neighbourhood


class NeighbourhoodConditionals(MixtureConditionals):
    """The planes of the images, known up to the next pixel."""

    def __init__(self, model: Neighbourhood, num_images: int) -> None:
        super().__init__(model.spec, model.local.predictor.dtype)
        self.model = model
        local = model.local
        blank = torch.zeros(num_images, *model.spec.shape, dtype=self.dtype, device=model.device)
        self.planes = Planes(
            x=local.pad(blank),
            residual=local.pad(blank),
            prediction=blank,
            scale=torch.ones_like(blank[:, :1]),
            above=torch.zeros_like(blank[:, :1]).repeat(1, 2, 1, 1),
        )
        self.image = torch.arange(num_images, device=model.device)

    def next_mixture(self) -> LogisticMixture:
        self._predict()
        pixel = torch.full_like(self.image, self.row * self.spec.width + self.column)
        return self.model.mixture_of(self.model.reader(self.planes, self.image, pixel)).mixture()

    def push_pixel(self, x: Tensor) -> None:
        radius, width = self.model.config.radius, self.spec.width
        row, column = self.row, self.column
        self.planes.x[:, :, row + radius, column + radius] = x
        self.planes.residual[:, :, row + radius, column + radius] = x - self.planes.prediction[:, :, row, column]
        if column + 1 == width:
            residual = self.planes.residual[:, :, radius:, radius : radius + width]
            self.planes.above.copy_(self.model.reader.errors_above(residual))

    def _predict(self) -> None:
        """The linear prediction and its expected error, of the next pixel."""
        local, radius = self.model.local, self.model.config.radius
        row, column = self.row, self.column
        rows, columns = slice(row, row + radius + 1), slice(column, column + 2 * radius + 1)
        inside = local.inside[:, :, rows, columns]
        self.planes.prediction[:, :, row, column] = local.predict(self.planes.x[:, :, rows, columns], inside)[..., 0, 0]
        self.planes.scale[:, :, row, column] = local.scale(self.planes.residual[:, :, rows, columns], inside)[..., 0, 0]
