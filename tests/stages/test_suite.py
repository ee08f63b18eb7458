"""A suite of real rows: killed at a random moment, what it finished is whole; a row that fails keeps its traceback."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dgm.config.params import load_params
from dgm.config.sections import TrainingConfig
from dgm.data import verify
from dgm.errors import StageError
from dgm.settings import training_config
from dgm.suite.acceptance import Arrival, read_arrival
from dgm.suite.row import STAGES, log_file
from stages.suite import main, process_start, table
from stages.suite_row import seconds_to_train, start, time_box

ROOT = Path(__file__).parents[2]
PATCH = """
from dgm.data import verify
verify.TRAIN_SHA256, verify.TEST_SHA256 = {!r}, {!r}
"""


@pytest.fixture
def machine(project: Path) -> Path:
    """A folder with params.yaml and random images of CIFAR-10's shape, which every process there takes for CIFAR-10."""
    rng = np.random.default_rng(0)
    (project / "data").mkdir()
    hashes: list[str] = []
    for name, count in (("train", 50000), ("test", 10000)):
        images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        np.save(project / "data" / f"{name}.npy", images)
        hashes.append(verify.sha256_of_array(images))
    (project / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (project / "site").mkdir()
    (project / "site" / "sitecustomize.py").write_text(PATCH.format(*hashes))
    return project


def started(machine: Path, minutes: float, *models: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "stages.suite", "--profile", "smoke", "--minutes", str(minutes)]
    command += ["--jobs", "2", "--models", *models]
    path = os.pathsep.join([str(machine / "site"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=machine, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def arrived(machine: Path) -> Arrival:
    parts = machine / ".work" / "suite" / "smoke" / "parts"
    return read_arrival(parts, machine / "incoming") if list(parts.glob("*.zip")) else Arrival([], [])


def wait_until(is_true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not is_true() and time.monotonic() < end:
        time.sleep(0.1)
    assert is_true()


def processes_in(folder: Path) -> list[str]:
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and (entry / "cwd").resolve() == folder.resolve() and int(entry.name) != os.getpid():
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_a_killed_suite_leaves_whole_rows_and_no_process(machine: Path) -> None:
    suite = started(machine, 10, "uniform", "histogram_per_channel", "made")
    wait_until(lambda: any("evaluate" in row.stages for row in arrived(machine).rows), 240)
    time.sleep(random.random())
    suite.send_signal(signal.SIGKILL)
    suite.wait()
    wait_until(lambda: not processes_in(machine), 30)
    arrival = arrived(machine)
    assert not [line for line in arrival.refused if "has no results" not in line]
    assert {row.row.model for row in arrival.rows} & {"uniform", "histogram_per_channel"}
    assert all(row.stages == STAGES[: len(row.stages)] for row in arrival.rows)


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
