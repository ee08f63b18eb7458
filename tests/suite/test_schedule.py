"""Rows share the time of a suite by weight, whatever the number of places and however early or late rows end."""

from __future__ import annotations

import heapq

import pytest

from dgm.suite.schedule import LAUNCH_BOUND, Schedule, evaluation_that_fits

WEIGHTS = {
    "pixelcnn_pp": 0.2,
    "pixelcnn": 0.06,
    "gated_pixelcnn": 0.06,
    "row_lstm": 0.06,
    "diagonal_bilstm": 0.06,
    "real_nvp": 0.06,
    "vae_iaf": 0.05,
    "conv_draw": 0.05,
    "draw": 0.04,
    "ride": 0.03,
    "wavenet": 0.03,
    "char_rnn": 0.03,
    "deep_diffusion": 0.02,
    "made": 0.02,
    "vae": 0.02,
    "nice": 0.01,
}


def simulate(weights: dict[str, float], jobs: int, end: float, used: float) -> tuple[dict[str, float], float]:
    """Each row frees its place after `used` of its time: seconds given to each row, and when the last one ended."""
    schedule, now, given = Schedule(weights, jobs, end), 0.0, dict[str, float]()
    ends: list[tuple[float, str]] = []
    while schedule.waiting or ends:
        while schedule.has_place():
            row, until = schedule.begin(now)
            given[row] = until - now
            heapq.heappush(ends, (now + used * (until - now), row))
        assert len(ends) <= jobs
        now, row = heapq.heappop(ends)
        schedule.free(row)
    return given, now


@pytest.mark.parametrize("jobs", [1, 2, 3, 5])
@pytest.mark.parametrize("used", [1.0, 0.95])
def test_the_time_is_used_within_a_tenth_and_never_exceeded(jobs: int, used: float) -> None:
    given, last = simulate(WEIGHTS, jobs, 540.0, used)
    assert given.keys() == WEIGHTS.keys()
    assert 0.9 * 540 <= last <= 540 + 1e-6


def test_one_place_is_divided_by_weight() -> None:
    given, _ = simulate(WEIGHTS, 1, 600.0, 1.0)
    total = sum(WEIGHTS.values())
    assert given == {row: pytest.approx(600 * weight / total) for row, weight in WEIGHTS.items()}


def test_what_a_row_leaves_goes_to_the_others_and_a_late_row_takes_only_its_own_place() -> None:
    early, _ = simulate({"made": 1.0, "nice": 1.0}, 1, 100.0, 0.5)
    assert early == {"made": 50.0, "nice": 75.0}
    late = Schedule({"made": 1.0, "nice": 1.0}, 1, 100.0)
    late.begin(0.0)
    late.free("made")
    assert late.begin(90.0) == ("nice", 100.0)


def test_launch_bound_rows_run_beside_others() -> None:
    schedule = Schedule(WEIGHTS, 2, 540.0)
    first, second = schedule.begin(0.0)[0], schedule.begin(0.0)[0]
    assert (first in LAUNCH_BOUND) != (second in LAUNCH_BOUND)
    assert not schedule.has_place()


@pytest.mark.parametrize(
    ("draws", "samples", "seconds", "expected"),
    [
        (4, 0, 100.0, (4, 0)),
        (4, 0, 25.0, (2, 0)),
        (4, 0, 0.0, (1, 0)),
        (1, 50, 600.0, (1, 50)),
        (1, 50, 100.0, (1, 9)),
        (1, 50, 0.0, (1, 1)),
    ],
)
def test_scoring_is_cut_to_its_seconds(draws: int, samples: int, seconds: float, expected: tuple[int, int]) -> None:
    assert evaluation_that_fits(draws, samples, 10.0, seconds) == expected


def test_rows_begin_in_the_order_that_is_asked_for() -> None:
    wanted = {"nice": 0.1, "draw": 0.3, "pixelcnn_pp": 0.5, "ride": 0.2}
    schedule = Schedule(wanted, 3, 100.0, is_in_order=True)
    began = [schedule.begin(0.0)[0] for _ in range(3)]
    schedule.free("draw")
    assert [*began, schedule.begin(50.0)[0]] == list(wanted)
