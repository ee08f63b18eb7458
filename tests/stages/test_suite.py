"""A suite of real rows: killed at a random moment, what it finished is whole; a row that fails keeps its traceback."""

from __future__ import annotations

import multiprocessing
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from dgm.config.params import load_params
from dgm.config.sections import TrainingConfig
from dgm.errors import StageError
from dgm.settings import training_config
from dgm.suite.row import Row, log_file, write_row
from dgm.suite.schedule import Schedule
from stages.suite import Suite, main, process_start, table
from stages.suite_row import seconds_to_train, start, time_box
from tests.stages.killed_suites import arrived, check_killed, make_machine, started, wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def machine(project: Path) -> Path:
    """A folder in which a suite can run."""
    return make_machine(project)


def test_a_killed_suite_leaves_whole_rows_and_no_process(machine: Path) -> None:
    suite = started(machine, 10, "uniform", "histogram_per_channel", "made")
    wait_until(lambda: any("evaluate" in row.stages for row in arrived(machine).rows), 240)
    time.sleep(random.random())
    suite.send_signal(signal.SIGKILL)
    suite.wait()
    assert {stage.partition(":")[0] for stage in check_killed(machine)} & {"uniform", "histogram_per_channel"}


def test_a_row_that_fails_keeps_its_traceback_and_costs_only_itself(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("row of trouble")

    monkeypatch.setattr("stages.suite_row.run_row", fails)
    log = log_file("smoke", "made")
    log.parent.mkdir(parents=True)
    now = time.time()
    arguments = ("made", "smoke", "cpu", now, now + 9, log)
    process = multiprocessing.get_context("fork").Process(target=start, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 1
    text = log.read_text()
    assert text.startswith("Process ") and "Traceback" in text and text.endswith("ZeroDivisionError: row of trouble\n")
    assert [line.split(maxsplit=2) for line in table("smoke", ["made", "nice"]).splitlines()[1:]] == [
        ["made", "none", "ZeroDivisionError: row of trouble"],
        ["nice", "none", "did not begin"],
    ]


def test_what_follows_training_is_given_time() -> None:
    assert seconds_to_train(100.0, 104.0, 204.0) == 75.0
    assert seconds_to_train(100.0, 140.0, 240.0) == 20.0  # a slow start: the rest will be slow too
    assert seconds_to_train(100.0, 240.0, 240.0) == 1.0


def test_steps_are_no_budget_of_a_suite() -> None:
    params = load_params(ROOT / "params.yaml")
    for profile, keys in (("smoke", {"max_seconds", "max_steps"}), ("gpu", {"max_seconds"})):
        config = training_config(params, "made", profile)
        assert isinstance(config, TrainingConfig)
        assert time_box(config, 9.0).keys() == keys


def test_the_clock_begins_with_the_process() -> None:
    assert 0 < time.time() - process_start() < 24 * 3600


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--minutes", "0"], "must be greater than 0"), (["--minutes", "1", "--jobs", "0"], "must be greater than 0")],
)
def test_wrong_numbers_are_refused_before_anything_starts(
    project: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    (project / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.setattr(sys, "argv", ["suite", "--profile", "smoke", *arguments])
    with pytest.raises(StageError, match=reason):
        main()
    assert not (project / ".work").exists()


def test_a_row_without_time_does_not_begin_and_a_failed_packing_ends_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen on a GPU: rows that trained for a second each at the end, and a suite that ended with a removed file."""
    now = time.time()
    suite = Suite("smoke", Schedule({"made": 1.0, "nice": 1.0}, 2, now + 1), "cpu", now + 1, project / "out", 1)
    suite.run()
    assert not suite.rows and not (project / ".work").exists()
    assert capsys.readouterr().out.count("does not begin, there is no time left") == 2
    write_row(Row("made", "smoke", {}, "0" * 16, None, {"train": {"gone": "0" * 64}}, {"train": 1.0}, False))
    suite._pack()  # pyright: ignore[reportPrivateUsage]
    assert capsys.readouterr().out.startswith("not packed: ")


def test_a_suite_that_leaves_a_row_without_a_figure_says_so_and_fails(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.setattr(sys, "argv", ["suite", "--profile", "smoke", "--minutes", "0.01", "--models", "made", "nice"])
    with pytest.raises(StageError, match=r"^no figure of made, nice: see the logs in \.work/suite/smoke; "):
        main()
    assert "did not begin" in capsys.readouterr().out
