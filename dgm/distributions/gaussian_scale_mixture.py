"""MCGSM: a mixture of Gaussian scale mixtures whose weights and means depend on a feature vector.

Source: Theis, Hosseini & Bethge (2012), "Mixtures of conditional Gaussian scale mixtures applied to multiscale image
representations", PLoS ONE 7(7); the linear term of the gates is that of the authors' code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dgm.distributions.diagonal_gaussian import standard_noise
from dgm.model_api.ancestral import invert_distribution

NUM_EM_STEPS = 50


class MCGSM(nn.Module):
    """p(y | h) = sum over c, s of g_cs(h) N(y; A_c h + m_c, (exp(a_cs) P_c P_c')^-1).

    g(h) is the softmax over (c, s) of eta_cs + exp(a_cs) (w_c'h - sum_n beta_cn^2 (b_n'h)^2 / 2): the scale that makes
    a Gaussian narrow also scales its gate. P_c is lower triangular with a positive diagonal.
    Shapes everywhere: h (..., F), y (..., D) -> (...).
    Differs: the code fixes m at zero; here it is learned, from zero.
    """

    def __init__(
        self, num_features: int, dim: int, num_components: int, num_scales: int, num_gate_features: int
    ) -> None:
        super().__init__()
        self.dim, self.num_components, self.num_scales = dim, num_components, num_scales
        self.log_weight = nn.Parameter(torch.zeros(num_components, num_scales))  # eta
        self.log_scale = nn.Parameter(torch.zeros(num_components, num_scales))  # a
        self.energy = nn.Parameter(0.1 * torch.randn(num_components, num_gate_features))  # beta
        self.features = nn.Parameter(torch.randn(num_gate_features, num_features) / math.sqrt(num_features))  # b
        self.slope = nn.Parameter(0.1 * torch.randn(num_components, num_features) / math.sqrt(num_features))  # w
        self.mean = nn.Linear(num_features, num_components * dim)  # A, m
        nn.init.zeros_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)
        self.log_diagonal = nn.Parameter(torch.zeros(num_components, dim))
        self.off_diagonal = nn.Parameter(torch.zeros(num_components, dim, dim))

    @torch.no_grad()
    def start_from(self, residuals: Tensor) -> None:
        """Sets scales and weights to the Gaussian scale mixture that fits y without h. Shapes: (P, D).

        Before the first step p(y | h) is then close to the best density of y that knows nothing of h. The fit is EM.
        """
        squared = residuals.double().square().sum(dim=1, keepdim=True)
        spread = torch.linspace(-1.5, 1.5, self.num_scales, dtype=torch.float64, device=residuals.device)
        log_scale = spread - (squared.mean() / self.dim).log()
        log_weight = torch.full_like(log_scale, -math.log(self.num_scales))
        for _ in range(NUM_EM_STEPS):
            joint = log_weight + 0.5 * (self.dim * log_scale - log_scale.exp() * squared)
            responsibility = torch.softmax(joint, dim=1)
            count = responsibility.sum(dim=0).clamp(min=1e-6)
            log_weight = (count / len(residuals)).log()
            log_scale = (self.dim * count / (responsibility * squared).sum(dim=0).clamp(min=1e-12)).log()
        self.log_scale.copy_(log_scale.expand_as(self.log_scale))
        self.log_weight.copy_(log_weight.expand_as(self.log_weight))

    def precision_factors(self) -> Tensor:
        """P of each component. Shapes: -> (components, D, D)."""
        return self.off_diagonal.tril(-1) + torch.diag_embed(self.log_diagonal.exp())

    def idle_weights(self) -> dict[str, Tensor]:
        """All but what is below the diagonal."""
        return {"off_diagonal": torch.ones_like(self.off_diagonal, dtype=torch.bool).triu()}

    def gate_logits(self, h: Tensor) -> Tensor:
        """Unnormalised log g(h). Shapes: (..., F) -> (..., components, scales)."""
        slope = h @ self.slope.T - 0.5 * (h @ self.features.T).square() @ self.energy.square().T
        return self.log_weight + self.log_scale.exp() * slope.unsqueeze(-1)

    def means(self, h: Tensor) -> Tensor:
        """Shapes: (..., F) -> (..., components, D)."""
        return self.mean(h).unflatten(-1, (self.num_components, self.dim))

    def log_prob(self, y: Tensor, h: Tensor) -> Tensor:
        """Natural logarithm of the density of y given h."""
        # P_c'(y - A_c h - m_c) for all c: the factors meet the weights, so that two plain matrix products remain
        factors = self.precision_factors()
        weight = self.mean.weight.unflatten(0, (self.num_components, self.dim))
        bias = self.mean.bias.view(self.num_components, self.dim)
        of_h = torch.einsum("cde,cdf->fce", factors, weight).flatten(1)
        of_y = factors.permute(1, 0, 2).flatten(1)
        standard = y @ of_y - h @ of_h - torch.einsum("cde,cd->ce", factors, bias).flatten()
        squared = standard.unflatten(-1, (self.num_components, self.dim)).square().sum(dim=-1).unsqueeze(-1)
        constant = self.log_diagonal.sum(dim=1, keepdim=True) - 0.5 * self.dim * math.log(2 * math.pi)
        log_normal = constant + 0.5 * (self.dim * self.log_scale - self.log_scale.exp() * squared)
        gates = self.gate_logits(h)
        return torch.logsumexp((gates + log_normal).flatten(-2), dim=-1) - torch.logsumexp(gates.flatten(-2), dim=-1)

    @torch.no_grad()
    def sample(self, h: Tensor, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """One y for each h; a temperature below 1 sharpens the gates and then the Gaussian, p^(1/T) each.

        Shapes: (N, F) -> (N, D).
        """
        uniforms = torch.rand(len(h), generator=generator, device=generator.device, dtype=torch.float64).to(h.device)
        chosen = invert_distribution(self.gate_logits(h).flatten(-2), uniforms, temperature)
        component = chosen // self.num_scales
        noise = standard_noise((len(h), self.dim), generator, h, drawn_in=torch.float64)
        noise = noise * math.sqrt(temperature) * (-0.5 * self.log_scale.flatten()[chosen]).exp().unsqueeze(-1)
        # (y - mean) P = standard noise, so y is one triangular solve away
        factor = self.precision_factors()[component].transpose(1, 2)
        offset = torch.linalg.solve_triangular(factor, noise.unsqueeze(-1), upper=True).squeeze(-1)
        return self.means(h)[torch.arange(len(h), device=h.device), component] + offset
