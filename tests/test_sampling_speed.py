"""The speed benchmark times what the samplers do, and counts the passes that the fixed point needs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.sampling_speed import LARGE, Speed, bars, fixed_point_seconds, measure, table
from dgm.model_api.contracts import AutoregressiveModel
from dgm.sampling.fixed_point import sample_by_fixed_point
from tests.tiny import SMALL, tiny_model

SPEED = Speed("made", "random", 1000, 2.0, 100.0, 10.0, 30, True)


@pytest.fixture
def model() -> AutoregressiveModel:
    made = tiny_model("made", SMALL)
    assert isinstance(made, AutoregressiveModel)
    return made


@torch.no_grad()
def test_passes_are_those_of_the_sampler_and_extrapolated_ones_are_marked(model: AutoregressiveModel) -> None:
    uniforms = torch.rand(4, SMALL.num_subpixels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, expected = sample_by_fixed_point(model, uniforms)
    _, num_passes, is_extrapolated = fixed_point_seconds(model, uniforms)
    assert (num_passes, is_extrapolated) == (expected, False)
    _, num_passes, is_extrapolated = fixed_point_seconds(model, uniforms, budget=0.0)
    assert is_extrapolated and expected / 4 < num_passes <= SMALL.num_subpixels + 1


def test_a_model_is_measured(model: AutoregressiveModel) -> None:
    speed = measure("made", "random", model)
    assert speed.cached_seconds > 0 and speed.naive_seconds > 0 and speed.fixed_point_seconds > 0


def test_the_table_has_ratios_and_the_bars_say_what_was_missed() -> None:
    large = replace(SPEED, name=LARGE)
    assert [cell.strip() for cell in table([SPEED]).splitlines()[2].split("|")[1:-1]] == [
        "made", "1,000", "random", "8", "≈ 1.6", "≈ 30", "0.16", "50", "5", "2.0"
    ]  # fmt: skip
    assert [line.rsplit(": ", 1)[1] for line in bars([SPEED, large])] == ["reached", "reached (50 times, 2.0 s)"]
    missed = [replace(SPEED, naive_seconds=38.0), replace(large, cached_seconds=20.5, naive_seconds=2050.0)]
    assert [line.rsplit(": ", 1)[1] for line in bars(missed)] == ["missed by made (19)", "missed (100 times, 20.5 s)"]
