"""Sub-pixel after sub-pixel: the incremental form of an autoregressive model, and sampling with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dgm.types import Images

if TYPE_CHECKING:
    from dgm.model_api.contracts import AutoregressiveModel


class Conditionals(ABC):
    """The sub-pixels of a batch of images, one at a time, in the model's order: the sampler and the coder use it."""

    @abstractmethod
    def log_pmf(self) -> Tensor:
        """Natural-log probabilities of the next sub-pixel given all pushed so far. Shapes: -> (N, levels)."""

    @abstractmethod
    def push(self, values: Tensor) -> None:
        """Fixes the next sub-pixel. Shapes: values (N,) int64 in [0, levels)."""


def sample_ancestrally(
    model: AutoregressiveModel,
    conditionals: Conditionals,
    uniforms: Tensor,
    temperature: float,
    given: Tensor | None = None,
) -> Images:
    """Draws sub-pixel after sub-pixel by inverting each conditional's distribution function at `uniforms`.

    Shapes: uniforms (N, D) in [0, 1), position t of the order in column t -> uint8 (N, C, H, W).
    given: int64 (N, D), flat over (C, H, W): values that are fixed, -1 where a value is to be drawn.
    """
    flat = torch.full(uniforms.shape, -1, device=uniforms.device) if given is None else given.to(uniforms.device)
    for t, index in enumerate(model.order().tolist()):
        drawn = invert_distribution(conditionals.log_pmf(), uniforms[:, t], temperature)
        values = torch.where(flat[:, index] < 0, drawn, flat[:, index])
        flat[:, index] = values
        conditionals.push(values)
    return flat.to(torch.uint8).view(-1, *model.spec.shape)


def invert_distribution(log_pmf: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
    """The level whose slice of the cumulative distribution holds each uniform. Shapes: (N, K), (N,) -> (N,) int64.

    A temperature below 1 sharpens each conditional: p^(1/T), renormalised. Temperature 0 takes its most probable level.
    """
    if temperature == 0:
        return log_pmf.argmax(dim=-1)
    scaled = log_pmf.double()
    if temperature != 1:  # the largest becomes 0, so that no temperature overflows
        scaled = (scaled - scaled.amax(dim=-1, keepdim=True)) / temperature
    cumulative = torch.softmax(scaled, dim=-1).cumsum(dim=-1)
    return (cumulative <= uniforms.unsqueeze(-1) * cumulative[..., -1:]).sum(dim=-1).clamp(max=log_pmf.shape[-1] - 1)


class RecomputedConditionals(Conditionals):
    """The naive incremental form: the whole network again for each sub-pixel. The oracle of the cached ones."""

    def __init__(self, model: AutoregressiveModel, num_images: int) -> None:
        self.model = model
        self.order = model.order().tolist()
        self.position = 0
        self.flat = torch.zeros(num_images, model.spec.num_subpixels, dtype=torch.uint8, device=model.device)

    @torch.no_grad()
    def log_pmf(self) -> Tensor:
        log_pmf = self.model.log_pmf(self.flat.view(-1, *self.model.spec.shape))
        return log_pmf.flatten(1, 3)[:, self.order[self.position]]

    def push(self, values: Tensor) -> None:
        self.flat[:, self.order[self.position]] = values.to(torch.uint8)
        self.position += 1
