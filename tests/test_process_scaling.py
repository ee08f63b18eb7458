"""What two processes together get done is compared turn by turn with what two apart do."""

from __future__ import annotations

import sys

import pytest

from benchmarks.process_scaling import Rate, Turn, main, summary
from dgm.errors import StageError


def test_a_turn_adds_up_its_processes() -> None:
    turn = Turn.of([Rate(20, 10.0, 5.0), Rate(10, 5.0, 5.0)])
    assert turn == Turn(by_clock=4.0, by_processor=3.0, cores=1.5)


def test_a_disturbance_of_both_pairs_leaves_the_ratio() -> None:
    measured = [
        {"apart": Turn(10.0 / slow, 5.0, 2.0), "together": Turn(9.6 / slow, 4.9, 1.9)} for slow in (1.0, 1.0, 3.0, 5.0)
    ]
    measured.append({"apart": Turn(10.0, 5.0, 2.0), "together": Turn(2.0, 4.9, 0.4)})  # one that falls on one pair only
    apart, together, by_clock, by_processor = summary(measured)
    assert apart == "two processes apart:    10.0 images/s, 5.0 per processor second, on 2.00 cores"
    assert together == "two processes together: 3.2 images/s, 4.9 per processor second, on 1.90 cores"
    assert by_clock == "ratio by the clock: 0.960, half of the rounds within 0.960 to 0.960"
    assert by_processor.startswith("ratio by processor time: 0.980")


def test_no_rounds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["process_scaling", "--rounds", "0"])
    with pytest.raises(StageError, match="--rounds must be greater than 0"):
        main()
