from __future__ import annotations

import itertools
import threading
import time

import pytest

from dgm.tracking import limits
from dgm.tracking.limits import call_within


def test_a_call_that_computes_is_waited_for_and_one_that_waits_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORK_SECONDS", 0.05)  # of 0.9: the machine may be busy with other tests

    def compute() -> int:
        until = time.process_time() + 1.5
        while time.process_time() < until:
            pass
        return 7

    assert call_within(0.9, compute) == 7
    with pytest.raises(TimeoutError, match="no answer"):
        call_within(0.9, lambda: time.sleep(2.5))


def test_call_within_gives_results_errors_and_up() -> None:
    never = threading.Event()
    assert call_within(5.0, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        call_within(5.0, lambda: 1 // 0)
    with pytest.raises(TimeoutError, match="no answer"):
        call_within(0.05, lambda: never.wait(5.0))
    never.set()


def test_a_call_that_gets_on_is_given_more_time() -> None:
    counter = itertools.count()
    assert call_within(0.6, lambda: time.sleep(1.2) or 7, lambda: next(counter)) == 7
    with pytest.raises(TimeoutError):
        call_within(0.6, lambda: time.sleep(1.2), lambda: "no progress")
