"""The table in N minutes: trains, scores, samples and proves one row after the other, each in a process of its own.

Needs neither network, DVC nor MLflow. Finished rows are whole on disk at any moment, and packed into parts under --out
as they finish; `python -m stages.accept FOLDER` takes them over in another checkout.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from dgm.config.budget import SHARE
from dgm.config.params import PROFILES, Params, load_params
from dgm.errors import StageError
from dgm.model_api.contracts import GradientTrained
from dgm.registry import MODELS, model_class
from dgm.runs.files import RunFiles
from dgm.runs.records import Metrics, read_record
from dgm.settings import check_model, evaluation_config, training_config
from dgm.suite.packing import num_parts, pack_suite
from dgm.suite.row import STAGES, log_file, read_row, row_file
from dgm.suite.schedule import Schedule
from dgm.tracking.secrets import VARIABLE
from dgm.tracking.untracked_run import OFF
from stages.cli import run_stage
from stages.suite_row import start

LOOK_SECONDS = 0.25
END_PART, MAX_END_SECONDS = 0.03, 10.0  # of the time, for the last packing
LATE_PART, MAX_LATE_SECONDS = 0.05, 15.0  # of the time, for rows that take longer than planned
FREE_GIB = 16.0  # of GPU memory that a further row waits for
LEAST_SECONDS = 3.0  # that are left for a row; with fewer it does not begin
DEFAULT_JOBS = {"cuda": 2, "cpu": os.cpu_count() or 1}  # processes on one GPU take turns: the second one is for starts


@dataclass
class Running:
    """A row's process. is_scored: its place is free, and it goes on with what needs little of a GPU."""

    process: BaseProcess
    is_scored: bool = False


def main() -> None:
    began = process_start()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", required=True, choices=PROFILES)
    parser.add_argument(
        "--minutes", type=float, required=True, help="of the whole suite, start-up and packing included"
    )
    parser.add_argument(
        "--models",
        nargs="+",
        choices=list(MODELS),
        help="in this order (default: all that are trained by gradient, the largest share first)",
    )
    parser.add_argument("--jobs", type=int, help="rows at a time (default: 2 on a GPU, one a core on a CPU)")
    parser.add_argument("--parts", type=int, default=4, help="how many files of 15 MiB to pack (default: 4)")
    parser.add_argument("--out", type=Path, help="folder of the parts (default: .work/suite/PROFILE/parts)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="instead of the profile's")
    given = parser.parse_args()
    params = load_params()
    device = given.device or params.common_config(given.profile).run.device
    jobs = DEFAULT_JOBS[device] if given.jobs is None else given.jobs
    if not (given.minutes > 0 and jobs > 0 and given.parts > 0):
        raise StageError("--minutes, --jobs and --parts must be greater than 0")
    models = given.models or trained_by_gradient(params)
    weights = {name: share_of(params, name, given.profile) for name in models}
    out = given.out or row_file(given.profile, "parts").parent
    seconds = 60 * given.minutes
    end = began + seconds - min(MAX_END_SECONDS, END_PART * seconds)
    for name in models:
        shutil.rmtree(row_file(given.profile, name).parent, ignore_errors=True)
    planned = end - min(MAX_LATE_SECONDS, LATE_PART * seconds)
    schedule = Schedule(weights, jobs, planned, is_in_order=given.models is not None)
    suite = Suite(given.profile, schedule, device, end, out, given.parts)
    suite.run()
    paths = pack_suite(given.profile, out, 1, given.parts)
    print(table(given.profile, models))
    print(f"{time.time() - began:.0f} of {seconds:.0f} s; {out}: {num_parts(paths)}", flush=True)
    if absent := [name for name in models if not has_figure(given.profile, name)]:
        logs = row_file(given.profile, absent[0]).parent.parent
        raise StageError(f"no figure of {', '.join(absent)}: see the logs in {logs}; give more minutes or fewer models")


class Suite:
    """The running rows of a suite."""

    def __init__(self, profile: str, schedule: Schedule, device: str, end: float, out: Path, parts: int) -> None:
        self.profile, self.schedule, self.device, self.end = profile, schedule, device, end
        self.out, self.parts = out, parts
        self.rows: dict[str, Running] = {}
        os.environ.setdefault(VARIABLE, OFF)
        self.processes = multiprocessing.get_context("forkserver")  # which imports torch once for all rows
        self.processes.set_forkserver_preload(["stages.suite_row"])

    def run(self) -> None:
        """Until every row has ended, or the time has: then those that are left are killed."""
        try:
            while (self.schedule.waiting or self.rows) and time.time() < self.end:
                while self.schedule.has_place() and self._has_memory():
                    self._begin(*self.schedule.begin(time.time()))
                time.sleep(LOOK_SECONDS)
                self._look()
        finally:
            for running in self.rows.values():
                running.process.kill()
            for running in self.rows.values():
                running.process.join()

    def _begin(self, name: str, until: float) -> None:
        if until - time.time() < LEAST_SECONDS:
            self.schedule.free(name)
            print(f"{name}: does not begin, there is no time left", flush=True)
            return
        log = log_file(self.profile, name)
        log.parent.mkdir(parents=True, exist_ok=True)
        process = self.processes.Process(target=start, args=(name, self.profile, self.device, time.time(), until, log))
        process.start()
        self.rows[name] = Running(process)
        print(f"{name}: begins, {until - time.time():.0f} s", flush=True)

    def _look(self) -> None:
        """Frees the places of rows that are scored, takes note of those that have ended, and packs what is new."""
        is_new = False
        for name, running in list(self.rows.items()):
            code = running.process.exitcode
            row = read_row(self.profile, name)
            if not running.is_scored and (code is not None or (row is not None and "evaluate" in row.files)):
                running.is_scored = is_new = True
                self.schedule.free(name)
            if code is not None:
                del self.rows[name]
                is_new = True
                print(f"{name}: {'finished' if code == 0 else f'failed with exit code {code}'}", flush=True)
        if is_new:
            self._pack()

    def _pack(self) -> None:
        """Packs what there is; rows go on where that fails, for a full disk or a file that someone removed."""
        try:
            pack_suite(self.profile, self.out, 1, self.parts)
        except (StageError, OSError) as error:
            print(f"not packed: {error}", flush=True)

    def _has_memory(self) -> bool:
        """Whether the GPU has room for one more row; where it cannot be asked, or none is running, it has."""
        if self.device != "cuda" or not self.rows:
            return True
        query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
        try:
            text = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
            return float(text.split()[0]) / 1024 >= FREE_GIB
        except (OSError, subprocess.SubprocessError, ValueError, IndexError):
            return True


def process_start() -> float:
    """Unix time when this process began, before it imported anything; now where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    except (OSError, ValueError, IndexError):
        return time.time()
    return time.time() - (uptime - ticks / os.sysconf("SC_CLK_TCK"))


def trained_by_gradient(params: Params) -> list[str]:
    """The models of the pipeline's suite that a time budget acts on."""
    return [name for name in params.suite if issubclass(model_class(name), GradientTrained)]


def share_of(params: Params, name: str, profile: str) -> float:
    """The weight of a row; where params.yaml gives it no share, one of as many as there are models.

    Raises: ConfigError if a section of the model is wrong, before anything is started.
    """
    check_model(params, name, profile)
    training_config(params, name, profile)
    evaluation_config(params, name, profile)
    return float(params.own_section(name, profile, "training").get(SHARE, 1 / len(MODELS)))


def has_figure(profile: str, name: str) -> bool:
    """Whether the row was scored; samples and proofs come after it, as far as the minutes go."""
    row = read_row(profile, name)
    return row is not None and "evaluate" in row.files


def table(profile: str, models: Sequence[str]) -> str:
    """One line a row: its test figure, how long each stage took, and why it failed if it did."""
    lines: list[tuple[str, ...]] = [("Row", "Test bits", "Seconds", "Stages", "Last line of the log")]
    for name in models:
        row = read_row(profile, name)
        metrics = read_record(RunFiles(profile, name).metrics, Metrics) if row and "evaluate" in row.files else None
        bits = "" if metrics is None else f"{metrics.test_bits_per_subpixel:.3f}"
        seconds = "" if row is None else " + ".join(f"{value:.0f}" for value in row.seconds.values())
        stages = ", ".join(row.files) if row else "none"
        is_whole = row is not None and len(row.files) == len(STAGES)
        lines.append((name, bits, seconds, stages, "" if is_whole else last_line(log_file(profile, name))))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def last_line(log: Path) -> str:
    """Of what the row printed; its traceback ends with it."""
    if not log.exists():
        return "did not begin"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:100] if lines else ""


if __name__ == "__main__":
    run_stage(main)
