"""The network one pixel at a time: what earlier pixels and finished bands of blocks have given is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dgm.distributions.logistic_mixture import LogisticMixture
from dgm.models.hourglass.middle import normalized
from dgm.nets.mixture_conditionals import MixtureConditionals

if TYPE_CHECKING:
    from dgm.models.hourglass.model import Hourglass


class HourglassConditionals(MixtureConditionals):
    """The middle runs once a band of blocks, the stage at full resolution once a pixel.

    It holds the planes of dgm.models.hourglass.local_inputs, filled up to the pixels pushed so far, and the normalised
    features that enter each block's convolution, padded by the block's reach.
    """

    @torch.no_grad()
    def __init__(self, model: Hourglass, num_images: int) -> None:
        self.model = model
        self.planes = model.inputs.blank(num_images)
        super().__init__(model.spec, self.planes.x.dtype)
        reach = model.config.reach
        shape = (num_images, self.spec.height + reach, self.spec.width + 2 * reach, model.config.num_features)
        self.kept = [self.planes.x.new_zeros(shape) for _ in model.local.blocks]

    def push_pixel(self, x: Tensor) -> None:
        self.model.inputs.push(self.planes, self.row, self.column, x)

    def next_mixture(self) -> LogisticMixture:
        model, side, reach = self.model, self.model.config.shortening, self.model.config.reach
        row, column = self.row, self.column
        if column == 0:
            self.mean_errors = model.inputs.mean_errors_above(self.planes, row)
            if row % side == 0:
                self.context = model.context(self.planes)
        model.inputs.begin_pixel(self.planes, row, column, self.mean_errors[:, column])
        here = self.planes.at(row, column)
        inputs, whitening = model.inputs(here), model.inputs.whitening
        context = self.context[:, row // side, None, column // side, None]
        place = torch.full((1, 1, 1), row % side * side + column % side, device=inputs.device)
        x = model.local.enter(inputs, whitening, context, place)[:, 0, 0]
        for block, kept in zip(model.local.blocks, self.kept, strict=True):
            kept[:, row + reach, column + reach] = normalized(x)
            x = block.at(x, kept[:, row : row + reach + 1, column : column + 2 * reach + 1])
        outputs = model.head(x, inputs[:, 0, 0], whitening)
        return model.mixture(outputs, here.here[:, 0, 0]).mixture()
