"""The forward trajectory of a Gaussian diffusion: how fast an image turns into noise, and which steps to look at.

q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I), t = 1 ... T, so q(x_t | x_0) = N(sqrt(A_t) x_0, (1 - A_t) I)
with the signal share A_t, the product of 1 - beta_s over s <= t.
Source: Sohl-Dickstein, Weiss, Maheswaranathan & Ganguli (2015), arXiv 1503.03585, section 2.4.1 and appendix B.1.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

LAST_SIGNAL = 1e-3  # what the log_snr schedule leaves of the signal's variance; the published one at T = 1000 as well
LARGEST_VARIANCE = 0.5 + 1e-12  # of a step: beyond, the exact reverse of a wide Gaussian is wider than a sigmoid can be

Schedule = Literal["reciprocal", "log_snr"]


def step_variances(num_steps: int, schedule: Schedule, first_variance: float) -> Tensor:
    """beta_1 ... beta_T. Shapes: -> (T,) float64. Raises: ValueError if a step is too coarse.

    reciprocal: 1 / beta_t from T to 2 at equal distances, as in the authors' code (the paper's 1 / (T - t + 1) ends
    at beta_T = 1, whose logit is infinite), but for beta_1. log_snr: equal falls of log(A_t / (1 - A_t)).
    """
    if schedule == "reciprocal":
        beta = 1 / torch.linspace(num_steps, 2, num_steps, dtype=torch.float64)
        beta[0] = first_variance
    else:
        first, last = math.log(1 / first_variance - 1), math.log(LAST_SIGNAL / (1 - LAST_SIGNAL))
        log_snr = torch.linspace(first, last, num_steps, dtype=torch.float64)
        signal = torch.cat([torch.ones(1, dtype=torch.float64), torch.sigmoid(log_snr)])
        noise = torch.cat([torch.zeros(1, dtype=torch.float64), torch.sigmoid(-log_snr)])
        beta = noise.diff() / signal[:-1]
    if bool((beta > LARGEST_VARIANCE).any()):
        raise ValueError(f"num_steps: {num_steps} steps are too few, the coarsest has variance {float(beta.max()):.3g}")
    return beta


class ForwardTrajectory(nn.Module):
    """Tables indexed by t = 0 ... T, in float64; entry 0 is the image itself, of variance 0."""

    def __init__(self, num_steps: int, schedule: Schedule, first_variance: float) -> None:
        super().__init__()
        self.num_steps = num_steps
        beta = torch.cat([torch.zeros(1, dtype=torch.float64), step_variances(num_steps, schedule, first_variance)])
        log_signal = torch.log1p(-beta).cumsum(0)
        signal, noise = log_signal.exp(), -torch.expm1(log_signal)
        falls = -(log_signal[1:] - noise[1:].log()).diff()  # of log-SNR, in steps 2 ... T
        share = torch.cat([torch.zeros(2, dtype=torch.float64), falls / falls.sum()])
        # not saved: they are functions of the configuration
        self.beta = nn.Buffer(beta, persistent=False)
        self.signal = nn.Buffer(signal, persistent=False)
        self.noise = nn.Buffer(noise, persistent=False)
        self.share = nn.Buffer(share, persistent=False)

    def draw_steps(self, num_images: int, num_draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Steps t in 2 ... T, and the weights under which a sum over draws is on average the sum over all steps.

        A step comes up in proportion to the log-SNR lost in it. The draws of an image are in equal strata of that
        axis, and inside each stratum the images of a batch are in equal strata again, in random order.
        Shapes: -> (draws, N) int64, (draws, N) float64.
        """
        device = generator.device
        offsets = torch.rand(num_draws, num_images, generator=generator, device=device, dtype=torch.float64)
        order = torch.stack([torch.randperm(num_images, generator=generator, device=device) for _ in range(num_draws)])
        stratum = torch.arange(num_draws, device=device)[:, None]
        place = (stratum + (order + offsets) / num_images) / num_draws
        t = torch.searchsorted(self.share.cumsum(0), place.to(self.share), right=True).clamp(2, self.num_steps)
        return t, 1 / (num_draws * self.share[t])
