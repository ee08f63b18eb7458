"""A normal variable on a grid: what goes on the stack comes off, and costs what the density says."""

from __future__ import annotations

import math
from typing import Any

import constriction
import numpy as np
import pytest

from dgm.coding.normal_grid import NormalGrid, pop_uniform, push_uniform

AnsCoder = constriction.stream.stack.AnsCoder  # type: ignore[attr-defined]


def filled_stack() -> tuple[Any, np.ndarray]:
    words = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    return AnsCoder(words, seal=True), words


@pytest.mark.parametrize("bits", [4, 5, 9, 20])
def test_places_come_back_and_cost_what_the_density_says(bits: int) -> None:
    stack, words = filled_stack()
    grid = NormalGrid(bits, reach=7)
    before = stack.num_valid_bits()
    index = grid.pop(stack, 5000)
    x = grid.position(index)
    assert abs(x.mean()) < 0.06 and abs(x.std() - 1) < 0.04
    ideal = (0.5 * np.square(x) + 0.5 * math.log(2 * math.pi)).sum() / math.log(2) + bits * 5000
    assert before - stack.num_valid_bits() == pytest.approx(ideal, rel=1e-3)
    grid.push(stack, index)
    assert np.array_equal(stack.get_compressed(unseal=True), words)


def test_the_ends_are_places_too() -> None:
    grid = NormalGrid(7, reach=7)
    index = np.array([grid.first, -1, 0, grid.last])
    stack = AnsCoder()
    grid.push(stack, index)
    assert np.array_equal(grid.pop(stack, 4), index)
    assert grid.position(index[[0, -1]]) == pytest.approx([-7.03, 7.03], abs=0.01)
    assert grid.lower_edge(np.array([grid.first, grid.last + 1])).tolist() == [-math.inf, math.inf]
    assert grid.places_below(np.array([-math.inf, -99.0, 99.0, math.inf])).tolist() == [
        grid.first,
        grid.first,
        grid.last + 1,
        grid.last + 1,
    ]


def test_a_place_holds_its_own_middle() -> None:
    grid = NormalGrid(10, reach=32)
    index = np.arange(grid.first, grid.last + 1)
    assert np.array_equal(grid.index_at(grid.position(index)), index)
    assert np.array_equal(grid.places_below(grid.position(index)), index)
    assert (np.diff(grid.position(index)) == 2.0**-10).all()


def test_uniform_values_come_back_and_one_of_one_costs_nothing() -> None:
    stack, words = filled_stack()
    sizes = np.array([1, 2, 1000, 1, 7, 2**20])
    values = pop_uniform(stack, sizes)
    assert ((values >= 0) & (values < sizes)).all() and values[0] == values[3] == 0
    push_uniform(stack, values, sizes)
    assert np.array_equal(stack.get_compressed(unseal=True), words)
    before = stack.num_valid_bits()
    push_uniform(stack, np.zeros(3, np.int64), np.ones(3, np.int64))
    assert stack.num_valid_bits() == before


@pytest.mark.parametrize("x", [4.1, -5.0, 8.3, -12.0, 15.0])
def test_rare_values_cost_what_the_density_says(x: float) -> None:
    """A 24-bit coder alone would sell them for 24 bits: a file would be shorter than the bound."""
    grid = NormalGrid(6, reach=32)
    index = np.full(200, grid.index_at(np.array([x]))[0])
    stack, _ = filled_stack()
    before = stack.num_valid_bits()
    grid.push(stack, index)
    middle = grid.position(index[:1])[0]
    ideal = 6 + (0.5 * middle**2 + 0.5 * math.log(2 * math.pi)) / math.log(2)
    assert (stack.num_valid_bits() - before) / 200 == pytest.approx(ideal, abs=0.005 * x**2 + 0.1)
    assert np.array_equal(grid.pop(stack, 200), index)
