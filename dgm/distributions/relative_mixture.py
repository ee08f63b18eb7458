"""A mixture of discretized logistics in the units of a prediction: offsets of its mean, multiples of its error.

A network that puts out zeros says the prediction itself, with the coefficients between channels that it was fitted
with. The mixture is that of `dgm.distributions.logistic_mixture`. Source: Salimans et al. (2017), arXiv 1701.05517.
Differs: the coefficients apply to the residuals of the earlier channels; the components are the first axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgm.distributions.discretized_logistic import MAX_ABS_LOG_SCALE
from dgm.distributions.logistic_mixture import MIN_LOG_SCALE, LogisticMixture, num_mixture_parameters
from dgm.distributions.mixture_log_prob import means_given, mixture_log_prob


@dataclass(frozen=True)
class RelativeMixture:
    """prediction (C, ...) in [-1, 1] units; logits (M, ...); means before the earlier channels have added theirs, and
    log-scales (C, M, ...); coefficients (pairs, M, ...), channel after channel, of the earlier channels' residuals."""

    prediction: Tensor
    logits: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor
    levels: int

    @classmethod
    def from_outputs(
        cls, outputs: Tensor, prediction: Tensor, scale: Tensor, coefficients: Tensor, levels: int
    ) -> RelativeMixture:
        """outputs: logit, offsets, log-scales and additions to the coefficients of each component, K numbers in all.

        Shapes: outputs (K, M, ...), K = num_mixture_parameters(C, 1); prediction (C, ...); scale, the expected error,
        (...); coefficients (C, C), of which those below the diagonal count.
        """
        channels = len(prediction)
        num_pairs = num_mixture_parameters(channels, 1) - 1 - 2 * channels
        logits, offsets, log_scales, added = outputs.split([1, channels, channels, num_pairs])
        row, column = torch.tril_indices(channels, channels, -1, device=outputs.device)
        fitted = coefficients[row, column].view(-1, *(1 for _ in outputs.shape[1:]))
        return cls(
            prediction,
            logits.squeeze(0),
            torch.addcmul(prediction.unsqueeze(1), scale, offsets),
            (log_scales + scale.log()).clamp(MIN_LOG_SCALE, MAX_ABS_LOG_SCALE),
            added + fitted,
            levels,
        )

    def log_prob(self, x: Tensor) -> Tensor:
        """Natural-log probability of pixels. Shapes: x, the values in [-1, 1] units, (C, ...) -> (...)."""
        means = means_given(self.means, self.coefficients, x - self.prediction)
        arguments = (x.flatten(1), self.logits.flatten(1), means.flatten(2), self.log_scales.flatten(2))
        return mixture_log_prob(*arguments, self.levels).view(x.shape[1:])

    def mixture(self) -> LogisticMixture:
        """The same distributions of (...) pixels, whose means take the earlier channels' values, not residuals."""
        means = means_given(self.means, self.coefficients, -self.prediction)
        log_weights = torch.log_softmax(self.logits, dim=0).movedim(0, -1)
        parts = (part.movedim((0, 1), (-2, -1)) for part in (means, self.log_scales, self.coefficients))
        means, log_scales, coefficients = parts
        return LogisticMixture(log_weights, means, log_scales, coefficients, self.levels)
