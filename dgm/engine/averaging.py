"""Exponential moving average of the weights: what is evaluated, sampled from and saved.

Running statistics of batch norm are averaged with the weights. They follow the live network, so beside averaged weights
they would describe another network than the one that is scored. Computing them again for the averaged weights would be
exact, but costs a pass over training images at every validation and makes the saved model depend on which images.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]


class WeightAverage:
    """Average with decay min(decay, (1 + step) / (10 + step)), so that early steps do not linger.

    Source: Polyak averaging as used by Salimans et al. (2017), arXiv 1701.05517; Differs: the warm-up.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live: dict[str, Tensor] = {**dict(model.named_parameters()), **running_statistics(model)}
        self.average = {name: tensor.detach().clone() for name, tensor in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        if self.average:
            live = [self.live[name] for name in self.average]
            # torch has no public name for it
            torch._foreach_lerp_(list(self.average.values()), live, 1 - decay)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]

    @contextmanager
    def applied(self) -> Generator[None]:
        """Inside, the model computes with the averaged weights and statistics."""
        kept = {name: tensor.detach().clone() for name, tensor in self.live.items()}
        self._load(self.average)
        try:
            yield
        finally:
            self._load(kept)

    @torch.no_grad()
    def _load(self, values: dict[str, Tensor]) -> None:
        for name, tensor in self.live.items():
            tensor.copy_(values[name])


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    """Name -> buffer, for every buffer that training moves: those of torch's batch norms, and those that a module of
    its own kind names in `running_statistics`."""
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        is_batch_norm = isinstance(module, _BatchNorm)
        names = ("running_mean", "running_var") if is_batch_norm else getattr(module, "running_statistics", ())
        buffers = module.named_buffers(prefix=path, recurse=False)
        found |= {name: buffer for name, buffer in buffers if name.rpartition(".")[2] in names}
    return found
