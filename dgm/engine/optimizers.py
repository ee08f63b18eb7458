"""AdamW from torch, and Muon for every weight that acts as a matrix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from dgm.config.sections import TrainingConfig

ADAMW_EPSILON = 1e-8
MUON_MOMENTUM = 0.95


def orthogonalize(updates: Tensor, num_iterations: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrix of each, roughly: singular values end in about [0.7, 1.2].

    Newton-Schulz iteration with a quintic polynomial. Shapes: (matrices, rows, columns) unchanged.
    Source: Jordan et al. (2024), "Muon: an optimizer for hidden layers", coefficients from there.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = updates.bfloat16() if updates.is_cuda else updates.float()
    if is_tall := x.shape[1] > x.shape[2]:
        x = x.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(num_iterations):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if is_tall else x).to(updates.dtype)


class Muon(Optimizer):
    """Momentum, orthogonalized; convolution kernels count as (out, in * taps) matrices.

    The step is scaled to the root mean square of an AdamW step, so that learning rates carry over. Matrices of one
    shape are worked on together: one by one, a deep network's would take a GPU longer to launch than to compute.
    Source: Liu et al. (2025), arXiv 2502.16982, equation 4.
    Differs: torch.optim.Muon (2.13) refuses parameters that are not 2-D.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # torch returns the loss of a closure
        for group in self.param_groups:
            same_shape: dict[tuple[int, int], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    same_shape.setdefault((len(parameter), parameter[0].numel()), []).append(parameter)
            for shape, parameters in same_shape.items():
                self._step_together(parameters, shape, group["lr"], group["weight_decay"])

    def _step_together(self, parameters: list[Tensor], shape: tuple[int, int], rate: float, decay: float) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta: list[Tensor] = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MUON_MOMENTUM)  # type: ignore[attr-defined]
        ahead = torch._foreach_lerp(gradients, momenta, MUON_MOMENTUM)  # type: ignore[attr-defined]
        updates = orthogonalize(torch.stack([direction.reshape(shape) for direction in ahead]))
        scale = 0.2 * max(shape) ** 0.5
        torch._foreach_mul_(parameters, 1 - rate * decay)  # type: ignore[attr-defined]
        changes = [update.view_as(parameter) for update, parameter in zip(updates, parameters, strict=True)]
        torch._foreach_add_(parameters, changes, alpha=-rate * scale)  # type: ignore[attr-defined]


def make_optimizers(model: nn.Module, config: TrainingConfig) -> list[Optimizer]:
    """AdamW for all, or Muon for hidden matrices and AdamW for the rest (head, embeddings, biases, gains).

    A parameter belongs to the rest if it has fewer than two axes of size over 1, or if a part of its name starts with
    `head` or `embedding`. Weight decay acts on matrices only.
    """
    matrices: list[Tensor] = []
    vectors: list[Tensor] = []
    hidden: list[Tensor] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2 and parameter.shape[0] > 1 and parameter[0].numel() > 1
        is_outer = any(part.startswith(("head", "embedding")) for part in name.split("."))
        if is_matrix and not is_outer and config.optimizer == "muon":
            hidden.append(parameter)
        else:
            (matrices if is_matrix else vectors).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    is_fused = any(parameter.is_cuda for parameter in model.parameters())
    optimizers: list[Optimizer] = []
    if matrices or vectors:
        optimizers.append(
            AdamW(
                [group for group in groups if group["params"]],
                lr=config.learning_rate,
                betas=(config.beta1, config.beta2),
                eps=ADAMW_EPSILON,
                fused=is_fused,
                foreach=not is_fused,
            )
        )
    if hidden and config.muon_learning_rate is not None:  # it is not: TrainingConfig has checked it
        optimizers.append(Muon(hidden, lr=config.muon_learning_rate, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def set_learning_rate(optimizers: list[Optimizer], factor: float) -> None:
    """Scales every group's learning rate to `factor` of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def current_learning_rate(optimizers: list[Optimizer]) -> float:
    """The rate of the last step: AdamW's, or Muon's where it has every parameter."""
    return float(optimizers[0].param_groups[0]["lr"])
