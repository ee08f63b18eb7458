from __future__ import annotations

import itertools
import math

import pytest
import torch

from dgm.distributions.hidden_tree import TreeShape, sample_tree, tree_log_prob, tree_posterior
from dgm.seeds import generator_for

SHAPES = [
    TreeShape(1, 2, (3,)),
    TreeShape(2, 2, (2, 3)),
    TreeShape(1, 3, (2, 2, 3)),
    TreeShape(3, 1, (2, 2, 2, 2)),
]


def random_tables(shape: TreeShape, seed: int = 0) -> list[torch.Tensor]:
    generator = generator_for(seed)
    tables = []
    for level in range(len(shape.states)):
        table = torch.rand(shape.table_shape(level), generator=generator, dtype=torch.float64) + 0.1
        tables.append((table / table.sum(dim=-1, keepdim=True)).log())
    return tables


def every_assignment(shape: TreeShape, log_tables: list[torch.Tensor]):
    """(states of the cells, log-probability of the whole tree) of every assignment of all nodes, by plain loops."""
    counts = [shape.num_nodes(level) for level in range(len(shape.states))]
    ranges = [range(shape.states[level]) for level, count in enumerate(counts) for _ in range(count)]
    for flat in itertools.product(*ranges):
        states, rest = [], list(flat)
        for count in counts:
            states.append(rest[:count])
            rest = rest[count:]
        log_prob = 0.0
        for level, nodes in enumerate(states):
            for node, state in enumerate(nodes):
                is_top = level == len(states) - 1
                parent = 0 if is_top else states[level + 1][int(shape.parents(level)[node])]
                log_prob += float(log_tables[level][node, parent, state])
        yield states, log_prob


@pytest.mark.parametrize("shape", SHAPES)
def test_the_recursion_is_the_sum_over_every_path(shape: TreeShape) -> None:
    tables = random_tables(shape)
    evidence = torch.randn(2, shape.num_nodes(0), shape.states[0], generator=generator_for(1), dtype=torch.float64) * 3
    totals = [0.0, 0.0]
    for states, log_prob in every_assignment(shape, tables):
        for n in range(2):
            fit = sum(float(evidence[n, cell, state]) for cell, state in enumerate(states[0]))
            totals[n] += math.exp(log_prob + fit)
    actual = tree_log_prob(shape, evidence, tables)
    torch.testing.assert_close(actual.exp(), torch.tensor(totals, dtype=torch.float64), rtol=1e-10, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_posterior_counts_are_expectations_over_every_path(shape: TreeShape) -> None:
    tables = random_tables(shape)
    evidence = torch.randn(1, shape.num_nodes(0), shape.states[0], generator=generator_for(2), dtype=torch.float64)
    log_prob, posterior, counts = tree_posterior(shape, evidence, tables)
    expected = torch.zeros_like(posterior)
    expected_counts = [torch.zeros_like(table) for table in tables]
    for states, prior in every_assignment(shape, tables):
        fit = sum(float(evidence[0, cell, state]) for cell, state in enumerate(states[0]))
        weight = math.exp(prior + fit - float(log_prob))
        for level, nodes in enumerate(states):
            for node, state in enumerate(nodes):
                is_top = level == len(states) - 1
                parent = 0 if is_top else states[level + 1][int(shape.parents(level)[node])]
                expected_counts[level][node, parent, state] += weight
        for cell, state in enumerate(states[0]):
            expected[0, cell, state] += weight
    torch.testing.assert_close(posterior, expected, rtol=0, atol=1e-10)
    for actual, wanted in zip(counts, expected_counts, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-10)


def test_grids_halve_up_to_one_root() -> None:
    shape = TreeShape(8, 6, (4, 3, 2, 5))
    assert [shape.grid(level) for level in range(4)] == [(8, 6), (4, 3), (2, 2), (1, 1)]
    assert shape.parents(0).view(8, 6)[5, 3] == 2 * 3 + 1
    assert shape.parents(2).tolist() == [0, 0, 0, 0]
    assert shape.table_shape(3) == (1, 1, 5)


def test_extreme_evidence_stays_finite() -> None:
    shape = TreeShape(1, 2, (2, 2))
    evidence = torch.tensor([[[-1e6, -2e6], [3e6, -3e6]]], dtype=torch.float64)
    assert float(tree_log_prob(shape, evidence, random_tables(shape))) == pytest.approx(2e6, abs=10)


def test_samples_follow_the_joint_of_the_cells() -> None:
    shape = TreeShape(1, 3, (2, 2, 3))
    tables = random_tables(shape)
    states = sample_tree(shape, tables, 40000, generator_for(3))
    frequency = (states * torch.tensor([4, 2, 1])).sum(dim=1).bincount(minlength=8) / 40000
    expected = torch.zeros(8)
    for nodes, log_prob in every_assignment(shape, tables):
        expected[nodes[0][0] * 4 + nodes[0][1] * 2 + nodes[0][2]] += math.exp(log_prob)
    torch.testing.assert_close(frequency, expected, rtol=0, atol=0.012)
