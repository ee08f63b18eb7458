"""The decoding benchmark times what the coder does, whole images extrapolated, and says what was missed."""

from __future__ import annotations

import pytest

from benchmarks import decoding_speed as benchmark
from dgm.model_api.contracts import AutoregressiveModel
from dgm.types import CIFAR10
from tests.tiny import random_images, tiny_model


def test_a_model_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "ROW", 3)
    model = tiny_model("histogram_left", CIFAR10)
    assert isinstance(model, AutoregressiveModel)
    conditionals, encode, decode = benchmark.speeds(model, random_images(CIFAR10, 2))
    assert conditionals > encode > 0 and decode > 0


def test_the_stopwatch_takes_the_fastest_row_but_not_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "NUM_TIMED_ROWS", 2)
    now = iter([0.0, 10.0, 14.0, 20.0, 23.0])  # the first row's end is not asked for
    monkeypatch.setattr(benchmark.time, "process_time", lambda: next(now))
    watch = benchmark.Stopwatch()
    positions = list(watch(range(3072)))
    assert positions == list(range(3 * 96)) and watch.seconds == [4.0, 3.0]
    assert watch.images_per_second(48) == pytest.approx(48 / (3.0 * 32))


def test_the_report_has_ratios_and_names_what_was_missed() -> None:
    fast = benchmark.row("made", "trained", 500, [80.0, 50.0, 40.0], [8.0, 5.0, 4.0])
    assert fast == ["made", "trained", "500", "8 → 80", "5 → 50", "4 → 40", "10.0", "4.2"]
    slow = benchmark.row("wavenet", "trained", 500, [30.0, 20.0, 20.0], None)
    assert slow[3:] == ["30", "20", "20", "", "8.3"]
    alone = benchmark.row("wavenet", "trained", 16, [3.0, 2.0, 2.0], None)
    assert benchmark.report([fast, alone], True).splitlines()[-1].endswith("500 at once: reached")
    assert benchmark.report([fast, alone, slow], True).splitlines()[-1].endswith("missed by wavenet (8.3)")
