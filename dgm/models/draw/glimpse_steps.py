"""DRAW one glimpse at a time, for bits-back coding: the encoder's part runs only where there are images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from dgm.distributions.discretized_logistic import discretized_logistic_log_pmf, unit_from_levels
from dgm.model_api.latent_steps import Gaussian, LatentSteps, Posterior, fixed
from dgm.types import Images

if TYPE_CHECKING:
    from dgm.models.draw.model import DRAW


class GlimpseSteps(LatentSteps):
    """Canvas and states after some glimpses, and the posterior of the next one if there are images."""

    def __init__(self, model: DRAW, num_images: int, images: Images | None) -> None:
        self.model, self.num_steps, self.step = model, model.config.num_steps, 0
        self.canvas = model.start(num_images)
        self.encoder, self.decoder = (cell.first_state(num_images) for cell in (model.encoder, model.decoder))
        self.x: Tensor | None = None
        if images is not None:
            self.x = unit_from_levels(images, model.spec.levels, model.first_canvas.dtype)
        self.found = self._look()

    def prior(self) -> Gaussian:
        zero = self.model.first_canvas.new_zeros(len(self.canvas[0]), self.model.config.num_latents)
        return zero, zero

    def posterior(self) -> Posterior:
        return fixed(self.found)

    def push(self, z: Tensor) -> None:
        z = z.to(self.model.first_canvas)
        self.canvas, self.decoder = self.model.paint(self.step, z, self.canvas, self.decoder)
        self.step += 1
        self.found = self._look()

    def log_pmf(self) -> Tensor:
        return discretized_logistic_log_pmf(*self.model.likelihood(self.canvas), self.model.spec.levels)

    def _look(self) -> Gaussian | None:
        """The posterior of the next glimpse; the encoder moves on."""
        if self.x is None or self.step == self.num_steps:
            return None
        found, self.encoder = self.model.encode(self.step, self.x, self.canvas, self.encoder, self.decoder)
        return found.mean, found.log_std
