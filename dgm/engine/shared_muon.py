"""Muon by several ranks: each orthogonalizes some of the matrices, all of them take all steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dgm.engine.optimizers import MUON_MOMENTUM, Muon, orthogonalize
from dgm.ranks import Ranks

Shape = tuple[int, int]


class SharedMuon(Muon):
    """The same steps as Muon, to rounding. Momentum, which is cheap, is on every rank, and so in every checkpoint."""

    def __init__(self, muon: Muon, ranks: Ranks) -> None:
        """Takes over the parameters, the learning rates and the state of `muon`."""
        super().__init__(muon.param_groups, lr=0.0, weight_decay=0.0)  # the groups have their own  # pyright: ignore[reportArgumentType]
        self.state.update(muon.state)
        self.ranks = ranks

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # torch returns the loss of a closure
        for group in self.param_groups:
            parameters: list[Tensor] = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            shapes: list[Shape] = [(len(parameter), parameter[0].numel()) for parameter in parameters]
            updates = self._orthogonalized(self._directions(parameters), shapes)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])  # type: ignore[attr-defined]
            for parameter, update, shape in zip(parameters, updates, shapes, strict=True):
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)

    def _directions(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Moves the momenta; the gradients, ahead of them."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta: list[Tensor] = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MUON_MOMENTUM)  # type: ignore[attr-defined]
        return list(torch._foreach_lerp(gradients, momenta, MUON_MOMENTUM))  # type: ignore[attr-defined]

    def _orthogonalized(self, directions: Sequence[Tensor], shapes: Sequence[Shape]) -> list[Tensor]:
        """Each as a matrix, orthogonalized by the rank that it belongs to."""
        owners = owners_of(shapes, self.ranks.count)
        updates = [torch.zeros_like(each).reshape(shape) for each, shape in zip(directions, shapes, strict=True)]
        same_shape: dict[Shape, list[int]] = {}
        for index, (shape, owner) in enumerate(zip(shapes, owners, strict=True)):
            if owner == self.ranks.rank:
                same_shape.setdefault(shape, []).append(index)
        for shape, indices in same_shape.items():
            together = orthogonalize(torch.stack([directions[index].reshape(shape) for index in indices]))
            for index, update in zip(indices, together, strict=True):
                updates[index].copy_(update)
        self.ranks.add(updates)  # all but one term of each sum are zeros
        return updates


def owners_of(shapes: Sequence[Shape], num_ranks: int) -> list[int]:
    """The rank of each matrix: the costliest first, each to the rank with the least work so far."""
    work = [0] * num_ranks
    owners = [0] * len(shapes)
    costs = [rows * columns * min(rows, columns) for rows, columns in shapes]
    for index in sorted(range(len(shapes)), key=lambda index: -costs[index]):
        owners[index] = work.index(min(work))
        work[owners[index]] += costs[index]
    return owners
