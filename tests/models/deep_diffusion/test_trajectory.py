"""The forward trajectory: published variances, end points of both schedules, and steps drawn without bias."""

from __future__ import annotations

import math

import pytest
import torch

from dgm.models.deep_diffusion.trajectory import LAST_SIGNAL, ForwardTrajectory, step_variances
from dgm.seeds import generator_for


def test_reciprocal_variances_are_the_published_ones() -> None:
    beta = step_variances(1000, "reciprocal", 0.002)
    assert float(beta[0]) == 0.002
    assert 1 / float(beta[1]) == pytest.approx(1000 - 998 / 999)
    assert 1 / float(beta[998]) == pytest.approx(2 + 998 / 999)
    assert float(beta[999]) == pytest.approx(0.5)
    signal = ForwardTrajectory(1000, "reciprocal", 0.002).signal
    assert float(signal[1000]) == pytest.approx(1e-3, rel=0.05)  # the authors: about 1 / T is left
    assert float(signal[500]) == pytest.approx(0.5, abs=2e-3)  # a constant share of the image's variance a step


def test_log_snr_falls_equally_from_the_first_variance_to_the_last_signal() -> None:
    trajectory = ForwardTrajectory(60, "log_snr", 1e-5)
    log_snr = (trajectory.signal[1:] / trajectory.noise[1:]).log()
    assert torch.allclose(log_snr.diff(), log_snr.diff()[0].expand(59), atol=1e-9)
    assert float(log_snr[0]) == pytest.approx(math.log(99999.0))
    assert float(trajectory.signal[-1]) == pytest.approx(LAST_SIGNAL)
    assert torch.allclose(trajectory.share[2:], torch.full((59,), 1 / 59, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("schedule", ["reciprocal", "log_snr"])
def test_tables_agree_with_steps_taken_one_by_one(schedule: str) -> None:
    trajectory = ForwardTrajectory(40, schedule, 1e-3)  # type: ignore[arg-type]
    signal, noise = 1.0, 0.0
    for t in range(1, 41):
        beta = float(trajectory.beta[t])
        signal, noise = signal * (1 - beta), noise * (1 - beta) + beta
        assert float(trajectory.signal[t]) == pytest.approx(signal, rel=1e-10)
        assert float(trajectory.noise[t]) == pytest.approx(noise, rel=1e-10)


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        ForwardTrajectory(10, "log_snr", 1e-5)


def test_weighted_draws_count_every_step_once_on_average() -> None:
    trajectory = ForwardTrajectory(9, "reciprocal", 0.01)
    t, weight = trajectory.draw_steps(100000, 3, generator_for(0))
    assert t.shape == weight.shape == (3, 100000)
    counts = torch.zeros(10, dtype=torch.float64).index_add(0, t.flatten(), weight.flatten()) / 100000
    assert torch.allclose(counts, torch.tensor([0.0, 0.0, *[1.0] * 8], dtype=torch.float64), atol=2e-3)


def test_strata_spread_the_draws_over_the_steps_and_the_images_over_a_stratum() -> None:
    trajectory = ForwardTrajectory(101, "log_snr", 1e-3)  # 100 steps of equal probability
    t, weight = trajectory.draw_steps(25, 4, generator_for(1))
    assert torch.equal(t.flatten().sort().values, torch.arange(2, 102))
    assert bool((t.sort(dim=1).values[:, 0] == torch.tensor([2, 27, 52, 77])).all())
    assert not torch.equal(t[0], t[0].sort().values)
    assert torch.allclose(weight, torch.full_like(weight, 25.0))
