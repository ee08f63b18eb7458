"""A tree of discrete hidden states over a grid of cells: which component generates each cell, given its surroundings.

One root state, then grids twice as fine from level to level, down to the cells; each node's state depends on its
parent's by the node's own table. The sum over all states is exact (upward recursion); posterior counts are gradients of
the log-likelihood, so expectation and recursion cannot disagree.
Source: Crouse, Nowak & Baraniuk (1998), "Wavelet-based statistical signal processing using hidden Markov models",
section IV (upward recursion). Differs: any number of states, gradients in place of the downward recursion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgm.model_api.ancestral import invert_distribution


@dataclass(frozen=True)
class TreeShape:
    """height, width: the grid of cells. states: number of states of a cell, of its parent, ..., of the root."""

    height: int
    width: int
    states: tuple[int, ...]

    def grid(self, level: int) -> tuple[int, int]:
        """Rows and columns of nodes at a level; 0 is the cells, the last level is the root alone."""
        if level > 0 and level == len(self.states) - 1:
            return 1, 1
        return -(-self.height // 2**level), -(-self.width // 2**level)

    def num_nodes(self, level: int) -> int:
        rows, columns = self.grid(level)
        return rows * columns

    def table_shape(self, level: int) -> tuple[int, int, int]:
        """(nodes, states of the parent, states of the node); the root's parent has one state."""
        parent_states = self.states[level + 1] if level + 1 < len(self.states) else 1
        return self.num_nodes(level), parent_states, self.states[level]

    def parents(self, level: int) -> Tensor:
        """Index of each node's parent in the level above, (nodes,); below the last level it is the root."""
        rows, columns = self.grid(level)
        above = self.grid(level + 1)[1] if level + 1 < len(self.states) else 1
        row, column = torch.arange(rows).view(-1, 1), torch.arange(columns).view(1, -1)
        if level + 2 >= len(self.states):
            return torch.zeros(rows * columns, dtype=torch.long)
        return ((row // 2) * above + column // 2).flatten()


def tree_log_prob(shape: TreeShape, evidence: Tensor, log_tables: Sequence[Tensor]) -> Tensor:
    """log of the sum over all states of P(states) exp(sum over cells of evidence[cell, state]).

    Shapes: evidence (N, cells, K), log_tables[level] (nodes, parent states, states) -> (N,).
    """
    message = evidence
    for level, log_table in enumerate(log_tables):
        peak = message.amax(dim=-1, keepdim=True).detach()
        # e^-80 of the likeliest state is nothing, and denormal numbers make products ten times slower
        likelihood = (message - peak).clamp(min=-80).exp()
        sums = torch.bmm(likelihood.transpose(0, 1), log_table.exp().transpose(1, 2))
        message = sums.transpose(0, 1).log() + peak
        if level + 1 < len(log_tables):
            gathered = message.new_zeros(len(message), shape.num_nodes(level + 1), message.shape[-1])
            message = gathered.index_add(1, shape.parents(level).to(message.device), message)
    return message.sum(dim=(1, 2))


def tree_posterior(
    shape: TreeShape, evidence: Tensor, log_tables: Sequence[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Log-probabilities (N,), posterior of the cells' states (N, cells, K), expected counts of the tables' entries."""
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in (evidence, *log_tables)]
        log_probs = tree_log_prob(shape, leaves[0], leaves[1:])
        posterior, *counts = torch.autograd.grad(log_probs.sum(), leaves)
    return log_probs.detach(), posterior, counts


def sample_tree(shape: TreeShape, log_tables: Sequence[Tensor], num_samples: int, generator: torch.Generator) -> Tensor:
    """States of the cells. Shapes: -> int64 (num_samples, cells)."""
    device = log_tables[0].device
    states = torch.zeros(num_samples, 1, dtype=torch.long, device=device)
    for level in reversed(range(len(log_tables))):
        num_nodes = shape.num_nodes(level)
        parent_states = states[:, shape.parents(level).to(device)]
        nodes = torch.arange(num_nodes, device=device).expand(num_samples, -1)
        uniforms = torch.rand(
            num_samples, num_nodes, generator=generator, device=generator.device, dtype=torch.float64
        ).to(device)
        states = invert_distribution(log_tables[level][nodes, parent_states], uniforms)
    return states
