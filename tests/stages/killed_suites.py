"""A folder with what a suite needs, and suites in it that are killed: for tests, and for a campaign of any length.

`python -m tests.stages.killed_suites --rounds 20` starts a suite of real rows that often, kills it by SIGKILL, each
time with more or fewer of its stages finished, and checks that no process is left, that every finished stage of a row
is whole, and that both what was packed by then and what is packed afterwards is accepted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dgm.data import verify
from dgm.model_api.contracts import GradientTrained
from dgm.registry import MODELS, model_class
from dgm.suite.acceptance import Arrival, read_arrival
from dgm.suite.packing import pack_suite
from dgm.suite.row import STAGES, digest_of, log_file, read_row

ROOT = Path(__file__).parents[2]
PARTS = Path(".work/suite/smoke/parts")
DELAY_SECONDS = 4.0  # between a stage that is whole and the kill, at most
PATCH = """
from dgm.data import verify
verify.TRAIN_SHA256, verify.TEST_SHA256 = {!r}, {!r}
"""


def make_machine(folder: Path) -> Path:
    """params.yaml and random images of CIFAR-10's shape, which every process there takes for CIFAR-10."""
    rng = np.random.default_rng(0)
    (folder / "data").mkdir()
    hashes: list[str] = []
    for name, count in (("train", 50000), ("test", 10000)):
        images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        np.save(folder / "data" / f"{name}.npy", images)
        hashes.append(verify.sha256_of_array(images))
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(PATCH.format(*hashes))
    return folder


def started(machine: Path, minutes: float, *models: str) -> subprocess.Popen[bytes]:
    """A suite of these rows, two at a time."""
    command = [sys.executable, "-m", "stages.suite", "--profile", "smoke", "--minutes", str(minutes)]
    command += ["--jobs", "2", "--models", *models]
    path = os.pathsep.join([str(machine / "site"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=machine, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def arrived(machine: Path) -> Arrival:
    """What the parts of the suite hold now."""
    parts = machine / PARTS
    return read_arrival(parts, machine / "incoming") if list(parts.glob("*.zip")) else Arrival([], [])


def wait_until(is_true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not is_true() and time.monotonic() < end:
        time.sleep(0.1)
    assert is_true()


def processes_in(folder: Path) -> list[str]:
    """The command lines of those that work in the folder, this one left out."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and (entry / "cwd").resolve() == folder.resolve() and int(entry.name) != os.getpid():
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return found


def check_killed(machine: Path) -> list[str]:
    """The stages, as row:stage, that a suite which was killed here had finished; to be called in the folder.

    Raises: AssertionError if a process is left, or a finished stage is not whole or not accepted.
    """
    wait_until(lambda: not processes_in(machine), 120)
    finished: dict[str, tuple[str, ...]] = {}
    for model in MODELS:
        row = read_row("smoke", model)
        if row is None:
            continue
        finished[model] = tuple(row.files)
        assert finished[model] == STAGES[: len(row.files)]
        for files in row.files.values():
            for path, digest in files.items():
                assert digest_of(Path(path).read_bytes()) == digest, path
    packed = arrived(machine)
    assert not [line for line in packed.refused if "has no results" not in line], packed.refused
    assert all(row.stages == finished[row.row.model][: len(row.stages)] for row in packed.rows)
    pack_suite("smoke", machine / "later", 1, 4)
    if list((machine / "later").glob("*.zip")):
        later = read_arrival(machine / "later", machine / "incoming")
        assert {row.row.model: row.stages for row in later.rows} == finished
    return [f"{model}:{stage}" for model, stages in finished.items() for stage in stages]


def num_whole(models: Sequence[str]) -> int:
    """How many stages the suite here has finished."""
    rows = [read_row("smoke", model) for model in models]
    return sum(len(row.files) for row in rows if row is not None)


def stages_begun(models: Sequence[str]) -> list[str]:
    """What the suite here is in the midst of, as row:stage. Raises: AssertionError if a row has failed."""
    begun: list[str] = []
    for model in models:
        if (log := log_file("smoke", model)).exists():
            assert "Traceback" not in log.read_text(), log.read_text()
            row = read_row("smoke", model)
            begun += [f"{model}:{stage}" for stage in STAGES[0 if row is None else len(row.files) :][:1]]
    return begun


def moments(rounds: int, num_stages: int) -> list[int]:
    """How many stages are to be whole before each kill: from 1 to all but one, spread evenly, in random order."""
    spread = [1 + number * (num_stages - 1) // rounds for number in range(rounds)]
    return random.sample(spread, rounds)


def campaign(rounds: int, minutes: float, models: Sequence[str]) -> None:
    """Kills so many suites of so many minutes, each a random time after as many stages were whole as `moments` says.

    The stages, not the clock, say when: a clock would cut most suites of a busy machine before they have anything. One
    that ends by itself before is started again, with more minutes.
    """
    by_gradient = [model for model in models if issubclass(model_class(model), GradientTrained)]
    num_with_row = num_in_training = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        machine = make_machine(Path(folder))
        for number, moment in enumerate(moments(rounds, len(models) * len(STAGES)), start=1):
            while (seconds := seconds_until_killed(machine, moment, minutes, models)) is None:
                check_killed(machine)
                minutes *= 1.5
                print(f"{number}: ended by itself; again with {minutes:g} minutes", flush=True)
            found, begun = check_killed(machine), stages_begun(models)
            num_with_row += any(stage.endswith(f":{STAGES[-1]}") for stage in found)
            num_in_training += any(f"{model}:{STAGES[0]}" in begun for model in by_gradient)
            print(f"{number}: killed after {seconds:.1f} s in {' '.join(begun)}; whole: {' '.join(found)}", flush=True)
    print(f"{rounds} kills, {num_with_row} with a finished row, {num_in_training} in a training by gradient")


def seconds_until_killed(machine: Path, moment: int, minutes: float, models: Sequence[str]) -> float | None:
    """Starts a suite in the folder, which holds none yet, and kills it; None if it ended by itself before."""
    for left in (".work", "runs", "reports", "later"):
        shutil.rmtree(machine / left, ignore_errors=True)
    began = time.monotonic()
    suite = started(machine, minutes, *models)
    while num_whole(models) < moment and suite.poll() is None:
        time.sleep(0.05)
    with contextlib.suppress(subprocess.TimeoutExpired):
        suite.wait(random.uniform(0, DELAY_SECONDS))
    is_killed = suite.poll() is None
    suite.send_signal(signal.SIGKILL)
    seconds = time.monotonic() - began
    suite.communicate()
    return seconds if is_killed else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=3.0, help="of a suite")
    parser.add_argument("--models", nargs="+", default=["uniform", "histogram_per_channel", "made"])
    given = parser.parse_args()
    campaign(given.rounds, given.minutes, given.models)


if __name__ == "__main__":
    main()
