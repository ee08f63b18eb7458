"""The steps between the convolutions of PixelCNN++: concatenated ELU with dropout, and the gate with its residual.

On a CPU their gradients are written out, in fewer passes over memory than automatic differentiation takes. A compiler
fuses the plain formulas itself, so it is given those.
Source: Salimans et al. (2017), arXiv 1701.05517, section 2.5 and the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MASK_BITS = 16  # random bits per number of a dropout mask on a CPU


def concat_elu(x: Tensor, dim: int = 1) -> Tensor:
    """ELU of x and of -x, side by side. Shapes: (N, C, ...) -> (N, 2 C, ...)."""
    return F.elu(torch.cat([x, -x], dim=dim), inplace=True)


@dataclass(frozen=True)
class DropoutMask:
    """0 or `scale` for each number. Shapes: factors (N, C, H, W), channels last."""

    factors: Tensor
    scale: float


def dropout_mask(shape: Sequence[int], dropout: float, like: Tensor) -> DropoutMask:
    """Drops with probability `dropout`, and scales the rest so that means stay. Shapes: (N, C, H, W) -> the same.

    Differs: on a CPU the probability is rounded to a multiple of 2^-16, and each number takes a quarter of a 64-bit
    draw: torch's Bernoulli draws take several times as long.
    """
    images, channels, height, width = shape
    if like.device.type != "cpu":
        scale = 1 / (1 - dropout)
        is_kept = torch.rand((images, height, width, channels), device=like.device) >= dropout
        return DropoutMask(is_kept.to(like.dtype).mul_(scale).permute(0, 3, 1, 2), scale)
    num_values, num_levels = images * channels * height * width, 2**MASK_BITS
    num_dropped = min(round(dropout * num_levels), num_levels - 1)
    draws = torch.randint(-(2**63), 2**63 - 1, (-(-num_values * MASK_BITS // 64),))
    is_kept = draws.view(torch.int16)[:num_values] >= num_dropped - num_levels // 2
    scale = num_levels / (num_levels - num_dropped)
    factors = is_kept.to(like.dtype).mul_(scale).view(images, height, width, channels)
    return DropoutMask(factors.permute(0, 3, 1, 2), scale)


def activate(x: Tensor, link: Tensor | None = None, mask: DropoutMask | None = None) -> Tensor:
    """Concatenated ELU of x, or of x + link, times mask. Differentiable in x and link.

    Shapes: x and link (N, C, H, W), mask (N, 2 C, H, W) -> (N, 2 C, H, W).
    """
    if _is_fused(x):
        factors, scale = (mask.factors, mask.scale) if mask else (None, 1.0)
        return _Activate.apply(x, link, factors, scale)  # pyright: ignore[reportReturnType]
    activated = concat_elu(x if link is None else x + link)
    return activated if mask is None else activated * mask.factors


def gated_residual(x: Tensor, y: Tensor) -> Tensor:
    """x + a * sigmoid(b), with a and b the halves of y. Differentiable in both.

    Shapes: x (N, C, H, W), y (N, 2 C, H, W) -> (N, C, H, W).
    """
    if _is_fused(x):
        return _GatedResidual.apply(x, y)  # pyright: ignore[reportReturnType]
    return x + F.glu(y, dim=1)


def _is_fused(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _empty(like: Tensor, num_channels: int) -> Tensor:
    """Channels last. Shapes: like (N, C, H, W) -> (N, num_channels, H, W)."""
    shape = (len(like), num_channels, *like.shape[2:])
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


class _Activate(torch.autograd.Function):
    """With e = exp(-|x|) - 1, never below -|x|: ELU(x) is the larger of x and e, ELU(-x) the larger of -x and e."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: Tensor, link: Tensor | None, mask: Tensor | None, scale: float
    ) -> Tensor:
        if link is not None:
            x = x + link
        channels = x.shape[1]
        negative = x.abs().neg_().exp_().sub_(1)
        activated = _empty(x, 2 * channels)
        torch.maximum(x, negative, out=activated[:, :channels])
        torch.maximum(-x, negative, out=activated[:, channels:])
        if mask is not None:
            activated.mul_(mask)
        ctx.save_for_backward(activated, mask)
        ctx.scale = scale
        return activated

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        activated, mask = ctx.saved_tensors
        of_both = torch.ops.aten.elu_backward(gradient, ctx.scale, 1.0, 1 / ctx.scale, True, activated)
        if mask is not None:
            of_both.mul_(mask)
        of_x, of_minus_x = of_both.chunk(2, dim=1)
        of_x = of_x - of_minus_x
        return of_x, of_x if ctx.needs_input_grad[1] else None, None, None


class _GatedResidual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        value, gate = y.chunk(2, dim=1)
        gate = torch.sigmoid(gate)
        ctx.save_for_backward(value, gate)
        return torch.addcmul(x, value, gate)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        value, gate = ctx.saved_tensors
        of_y = _empty(gradient, 2 * gradient.shape[1])
        of_value, of_gate = of_y.chunk(2, dim=1)
        torch.mul(gradient, gate, out=of_value)
        torch.ops.aten.sigmoid_backward.grad_input(gradient * value, gate, grad_input=of_gate)
        return gradient, of_y
