"""Log-probability of pixels under mixtures of discretized logistics, with its gradient written out.

What `dgm.distributions.logistic_mixture` computes by automatic differentiation, several times as fast: positions are
the last axis, the softplus of both edges share one logarithm, and the gradients come out of the forward pass.
Source: Salimans et al. (2017), arXiv 1701.05517, section 2.1; bins by the identity of
`dgm.distributions.discretized_logistic`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MAX_EXPONENT = 80.0  # exp(-80) is still a normal float32: smaller numbers would be slow, and change nothing
FAR = 1e12  # in place of the outer edges of the first and the last bin, also in units of the widest scale


def mixture_log_prob(x: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor, levels: int) -> Tensor:
    """Natural-log probability of all channels of each pixel, the components shared by its channels.

    Shapes: x (C, P), the values in [-1, 1] units; logits (M, P); means and log_scales (C, M, P), the means those given
    the earlier channels, the log-scales within +-20 -> (P,). Differentiable in all but x; float32 or wider.
    """
    return _MixtureLogProb.apply(x, logits, means, log_scales, levels)  # pyright: ignore[reportReturnType]


def means_given(means: Tensor, coefficients: Tensor, earlier: Tensor) -> Tensor:
    """The means with what the earlier channels add: coefficients times their values, or residuals.

    Shapes: means (C, M, ...); coefficients (pairs, M, ...), channel after channel; earlier (C, ...) -> (C, M, ...).
    """
    conditional, first = [means[0]], 0
    for channel in range(1, len(means)):
        shift = (coefficients[first : first + channel] * earlier[:channel].unsqueeze(1)).sum(dim=0)
        conditional.append(means[channel] + shift)
        first += channel
    return torch.stack(conditional)


class _MixtureLogProb(torch.autograd.Function):
    """With a = (x - edge) / scale at the lower and b = (edge - x) / scale at the upper edge of a bin, t = b's and a's
    distance: log P = log(1 - exp(-t)) - softplus(a) - softplus(b), without the terms of an edge that is at infinity."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor, levels: int
    ) -> Tensor:
        half_bin = 1.0 / (levels - 1)
        is_first, is_last = x < half_bin - 1, x > 1 - half_bin
        lower, upper = (
            torch.full_like(x, half_bin).masked_fill_(is_outer, FAR).unsqueeze(1) for is_outer in (is_first, is_last)
        )
        is_inside = (~(is_first | is_last)).to(x.dtype).unsqueeze(1)
        inverse_scales = torch.exp(-log_scales)
        centred = x.unsqueeze(1) - means
        a = (centred - lower).mul_(inverse_scales)
        b = centred.neg_().sub_(upper).mul_(inverse_scales)
        exp_a, exp_b = (each.abs().neg_().clamp_(min=-MAX_EXPONENT).exp_() for each in (a, b))
        width = inverse_scales.mul(2 * half_bin)
        one_plus_a, one_plus_b = exp_a + 1, exp_b + 1
        joint = (one_plus_a * one_plus_b).log_().add_(a.clamp(min=0)).add_(b.clamp(min=0))
        joint = torch.expm1(-width).neg_().log_().mul_(is_inside).sub_(joint).sum(dim=0)
        log_weights = torch.log_softmax(logits, dim=0)
        joint += log_weights
        log_prob = torch.logsumexp(joint, dim=0)
        if any(ctx.needs_input_grad):
            posterior = torch.exp((joint - log_prob).clamp_(min=-MAX_EXPONENT))
            sigmoid_a = torch.where(a > 0, 1.0, exp_a).div_(one_plus_a)
            sigmoid_b = torch.where(b > 0, 1.0, exp_b).div_(one_plus_b)
            of_means = (sigmoid_a - sigmoid_b).mul_(inverse_scales).mul_(posterior)
            of_log_scales = width.div(torch.expm1(width)).mul_(is_inside).neg_()
            of_log_scales.addcmul_(a, sigmoid_a).addcmul_(b, sigmoid_b).mul_(posterior)
            ctx.save_for_backward(posterior - log_weights.exp(), of_means, of_log_scales)
        return log_prob

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        of_logits, of_means, of_log_scales = ctx.saved_tensors
        return None, of_logits * gradient, of_means * gradient, of_log_scales * gradient, None
