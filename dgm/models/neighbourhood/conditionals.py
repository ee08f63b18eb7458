"""The neighbourhood network pixel by pixel: what is known fills the padded planes, the network runs once a pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.distributions.logistic_mixture import MixtureChain
from dgm.model_api.ancestral import Conditionals
from dgm.models.neighbourhood.features import Planes

if TYPE_CHECKING:
    from dgm.models.neighbourhood.model import Neighbourhood


class NeighbourhoodConditionals(Conditionals):
    """The mixture's chain serves the channels of a pixel."""

    def __init__(self, model: Neighbourhood, num_images: int) -> None:
        self.model = model
        spec, local = model.spec, model.local
        blank = torch.zeros(num_images, *spec.shape, dtype=local.predictor.dtype, device=model.device)
        self.planes = Planes(
            x=local.pad(blank),
            residual=local.pad(blank),
            prediction=blank,
            scale=torch.ones_like(blank[:, :1]),
            above=torch.zeros_like(blank[:, :1]).repeat(1, 2, 1, 1),
        )
        self.image = torch.arange(num_images, device=model.device)
        self.pixel = 0
        self.values: list[Tensor] = []
        self.chain: MixtureChain | None = None

    @torch.no_grad()
    def log_pmf(self) -> Tensor:
        return self._current_chain().log_pmf()

    @torch.no_grad()
    def push(self, values: Tensor) -> None:
        spec = self.model.spec
        self._current_chain().push(values)
        self.values.append(unit_from_levels(values, spec.levels, self.planes.x.dtype))
        if len(self.values) == spec.channels:
            self._finish_pixel(torch.stack(self.values, dim=1))
            self.pixel, self.values, self.chain = self.pixel + 1, [], None

    def _finish_pixel(self, x: Tensor) -> None:
        """Shapes: (N, C)."""
        radius, width = self.model.config.radius, self.model.spec.width
        row, column = divmod(self.pixel, width)
        self.planes.x[:, :, row + radius, column + radius] = x
        self.planes.residual[:, :, row + radius, column + radius] = x - self.planes.prediction[:, :, row, column]
        if column + 1 == width:
            residual = self.planes.residual[:, :, radius:, radius : radius + width]
            self.planes.above.copy_(self.model.reader.errors_above(residual))

    def _current_chain(self) -> MixtureChain:
        if self.chain is None:
            self._predict()
            pixel = torch.full_like(self.image, self.pixel)
            self.chain = MixtureChain(self.model.mixture(self.model.reader(self.planes, self.image, pixel)))
        return self.chain

    def _predict(self) -> None:
        """The linear prediction and its expected error, of the next pixel."""
        local, radius = self.model.local, self.model.config.radius
        row, column = divmod(self.pixel, self.model.spec.width)
        rows, columns = slice(row, row + radius + 1), slice(column, column + 2 * radius + 1)
        inside = local.inside[:, :, rows, columns]
        self.planes.prediction[:, :, row, column] = local.predict(self.planes.x[:, :, rows, columns], inside)[..., 0, 0]
        self.planes.scale[:, :, row, column] = local.scale(self.planes.residual[:, :, rows, columns], inside)[..., 0, 0]
