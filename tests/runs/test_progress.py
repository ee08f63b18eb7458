from __future__ import annotations

import io
import sys

import pytest

from dgm.runs import progress
from dgm.runs.progress import Progress, clock, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Watch:
    """A clock that a test moves on by hand, in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.seconds)


def advance(bar: Progress, step: int, seconds: float, validation_bits: float | None = 3.5) -> None:
    bar.update(step, 1234.5, 3.25, validation_bits, 1e-3, seconds)


def test_without_a_terminal_the_end_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(10, "train VAE", None) as bar:
        for step in range(1, 10):
            advance(bar, step, 2.0 * step)
    assert capsys.readouterr().err == (
        "train VAE: 90%, step 9/10, 1,234 images/s, train 3.250, validation 3.500 bits per sub-pixel, "
        "learning rate 0.001, 0:02 left\n"
    )


def test_without_a_terminal_a_line_appears_at_intervals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(monkeypatch)
    with Progress(10, "train", None) as bar:
        for step in range(1, 8):
            watch.seconds += 6.0
            advance(bar, step, 1.0 * step)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[1] for line in lines] == [" step 3/10", " step 6/10", " step 7/10"]


@pytest.mark.parametrize(("max_seconds", "left"), [(None, "10:00"), (120.0, "1:00"), (10000.0, "10:00")])
def test_time_left_is_that_of_the_budget_that_ends_first(
    capsys: pytest.CaptureFixture[str], max_seconds: float | None, left: str
) -> None:
    with Progress(110, "train", max_seconds) as bar:
        advance(bar, 10, 60.0)
    assert f", {left} left" in capsys.readouterr().err


def test_the_share_done_is_that_of_the_budget_that_ends_first(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(100, "train", 40.0) as bar:
        advance(bar, 10, 20.0)
    assert ": 50%, step 10/100" in capsys.readouterr().err


def test_validation_bits_are_left_out_before_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(100, "train", None) as bar:
        advance(bar, 10, 20.0, validation_bits=None)
    assert "train 3.250 bits per sub-pixel" in capsys.readouterr().err


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Progress(10, "train VAE", None) as bar:
        advance(bar, 5, 5.0)
        advance(bar, 10, 10.0)
    output = terminal.getvalue()
    assert "\r" in output
    assert "train VAE" in output
    assert "100%, step 10/10, 1,234 images/s" in output


def test_track_passes_items_on_and_prints_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter("abc"), 3, "score", "batch")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "score: batch 3/3 after 0:00\n"


def test_track_prints_at_intervals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    for _ in track(range(6), 6, "score", "batch"):
        watch.seconds += 10.0
    assert capsys.readouterr().err.splitlines() == [
        "score: batch 2/6, 0:40 left",
        "score: batch 4/6, 0:20 left",
        "score: batch 6/6 after 1:00",
    ]


def test_track_shows_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert list(track(iter("abc"), 3, "score", "batch")) == ["a", "b", "c"]
    assert "3/3" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "?"), (-3.0, "0:00"), (59.6, "1:00"), (754.0, "12:34"), (3723.0, "1:02:03")]
)
def test_clock(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text
