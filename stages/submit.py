"""The table on a cluster: one job a row, each the row's stages of the pipeline; results come into dvc.lock as they end.

Needs a folder that all machines see. A job that pauses is queued anew. A failure costs its row only; the log is kept.
Started again after any end, it leaves out what is up to date, and waits for what is still running.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from pydantic import dataclasses as checked_dataclasses
from submitit.core.utils import FailedJobError, UncompletedJobError

from dgm.config.params import PROFILES, load_params
from dgm.errors import StageError
from dgm.runs.checked import CHECKED, read_json, write_json
from dgm.runs.fields import Text
from dgm.runs.files import RunFiles
from dgm.runs.records import Metrics, read_record
from dgm.settings import check_model
from dgm.suite.row import STAGES
from dgm.tracking.mlflow_store import check_store
from stages.accept import report
from stages.cli import run_stage
from stages.dvc_command import dvc, last_line
from stages.own_gpu import VARIABLE, own_gpu, visible_gpus
from stages.submit_row import RowJob, job_folder, log_file, pause_file

LOOK_SECONDS = 1.0
SIGNAL_SECONDS = 120  # before its time limit a job is told to pause: the largest checkpoint takes seconds to write
MAX_REQUEUES = 1000
LOCAL_MINUTES = 365 * 24 * 60  # where no limit is asked for
DEFAULT_JOBS = {"local": 2, "slurm": 1000}


@checked_dataclasses.dataclass(frozen=True, config=CHECKED)
class Note:
    """Which job of which cluster a row was submitted as."""

    cluster: Text
    job: Text


@dataclass(frozen=True)
class Place:
    """Where the jobs run. options: of submitit for Slurm; gpus: those that the jobs here share out, by name."""

    cluster: str
    minutes: float | None
    options: dict[str, Any]
    gpus: Sequence[str]

    def variables(self, slot: int) -> dict[str, str | None]:
        """Of the stages of a job. Here submitit hides every GPU from it: they get the job's own, or what I have."""
        return {VARIABLE: os.environ.get(VARIABLE)} | own_gpu(slot, self.gpus) if self.cluster == "local" else {}

    def executor(self, profile: str, model: str) -> submitit.Executor:
        """What submits a row's job. Raises: StageError if there is no Slurm here, or it does not know an option."""
        folder = job_folder(profile, model) / "submitit"
        if self.cluster == "local":
            minutes = LOCAL_MINUTES if self.minutes is None else self.minutes
            executor = submitit.LocalExecutor(folder, max_num_timeout=MAX_REQUEUES)
            executor.update_parameters(timeout_min=minutes, signal_delay_s=SIGNAL_SECONDS)
            return executor
        options: dict[str, Any] = {"name": f"{profile}-{model}", "slurm_signal_delay_s": SIGNAL_SECONDS}
        if self.minutes is not None:
            options["timeout_min"] = int(self.minutes)
        try:
            executor = submitit.AutoExecutor(folder, cluster=self.cluster, slurm_max_num_timeout=MAX_REQUEUES)
            executor.update_parameters(**{**options, **self.options})
        except (RuntimeError, NameError, AssertionError, ValueError) as error:
            raise StageError(f"--cluster slurm: {str(error).splitlines()[0]}") from None
        return executor


class Submission:
    """The rows that wait, those that run, and how each ended."""

    def __init__(self, profile: str, place: Place, jobs: int, remote: str | None) -> None:
        self.profile, self.place, self.jobs, self.remote = profile, place, jobs, remote
        self.slots: dict[int, tuple[str, submitit.Job[None]]] = {}
        self.outcomes: dict[str, str] = {}

    def run(self, models: Sequence[str]) -> None:
        """Until every row has ended; local jobs end with this process, where it can end them."""
        waiting = list(models)
        try:
            while waiting or self.slots:
                while waiting and len(self.slots) < self.jobs:
                    self._submit(waiting.pop(0))
                time.sleep(LOOK_SECONDS)
                for slot, (model, job) in list(self.slots.items()):
                    if job.done():
                        del self.slots[slot]
                        if self._is_paused(model, job):
                            waiting.append(model)
        finally:
            for _, job in self.slots.values():
                if self.place.cluster == "local":
                    job.cancel()

    def _submit(self, model: str) -> None:
        slot = next(number for number in range(self.jobs) if number not in self.slots)
        executor = self.place.executor(self.profile, model)
        job = self._left_over(model)
        if job is None:
            job = executor.submit(RowJob(self.profile, model, self.remote, self.place.variables(slot)))
            write_json(self._note(model), Note(self.place.cluster, job.job_id))
        self.slots[slot] = (model, job)
        print(f"{model}: job {job.job_id}, log {log_file(self.profile, model)}", flush=True)

    def _left_over(self, model: str) -> submitit.Job[None] | None:
        """The row's job of an earlier submission that the cluster still has; a local one the new job waits for."""
        note = self._note(model)
        if self.place.cluster == "local" or not note.exists():
            return None
        left = read_json(note, Note, "delete it: the row is then submitted again")
        if left.cluster != self.place.cluster:
            return None
        job = submitit.SlurmJob[None](job_folder(self.profile, model) / "submitit", left.job)
        return None if job.done(force_check=True) else job

    def _is_paused(self, model: str, job: submitit.Job[None]) -> bool:
        """Takes note of how the row's job ended; True if it is to be submitted again."""
        log = log_file(self.profile, model)
        try:
            job.result()
            self.outcomes[model] = "finished"
        except UncompletedJobError as error:
            if not isinstance(error, FailedJobError) and pause_file(self.profile, model).exists():
                print(f"{model}: paused, queued anew", flush=True)
                return True
            self.outcomes[model] = f"failed: {reason(error, log)}"
        print(f"{model}: {self.outcomes[model]}", flush=True)
        return False

    def _note(self, model: str) -> Path:
        return job_folder(self.profile, model) / "job.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", required=True, choices=PROFILES)
    parser.add_argument("--cluster", required=True, choices=sorted(DEFAULT_JOBS))
    parser.add_argument("--models", nargs="+", help="default: the suite of params.yaml")
    parser.add_argument("--jobs", type=int, help="rows at a time (default: 2 here; on Slurm all, its queue decides)")
    parser.add_argument("--minutes", type=float, help="limit of a job, at which it pauses and is queued anew")
    parser.add_argument("--remote", help="a DVC remote that gets the results of each stage as it ends")
    parser.add_argument("--option", nargs="+", default=[], metavar="NAME=VALUE", help="e.g. slurm_partition=gpu")
    given = parser.parse_args()
    params = load_params()
    if params.profile != given.profile:
        raise StageError(f"params.yaml: profile is {params.profile}; write `profile: {given.profile}`")
    models = given.models or params.suite
    for model in models:
        if model not in params.suite:
            raise StageError(f"--models: {model} is not in the suite of params.yaml")
        check_model(params, model, given.profile)
    jobs = DEFAULT_JOBS[given.cluster] if given.jobs is None else given.jobs
    if given.option and given.cluster == "local":
        raise StageError("--option is for Slurm; jobs here have --jobs and --minutes")
    shortest = SIGNAL_SECONDS / 60 + 1
    if jobs < 1 or (given.minutes is not None and given.minutes < shortest):
        raise StageError(f"--jobs must be at least 1, --minutes at least {shortest:g}")
    gpus = visible_gpus(os.environ) if given.cluster == "local" else []
    place = Place(given.cluster, given.minutes, options_of(given.option), gpus)
    check_store(given.profile)
    dvc("repro", "download", "check")
    stale = json.loads(dvc("status", "--json", *STAGES) or "{}")
    submission = Submission(given.profile, place, jobs, given.remote)
    wanted = [model for model in models if any(target in stale for target in targets(given.profile, [model]))]
    if given.remote is not None:  # also what an earlier job has finished, but could not push
        dvc("push", "-r", given.remote, "check", *sorted(set(targets(given.profile, models)) - stale.keys()))
    submission.run(wanted)
    report(given.profile)
    print(table(given.profile, models, submission.outcomes))
    if any(outcome != "finished" for outcome in submission.outcomes.values()):
        raise StageError("some rows failed; the same command tries them again")


def targets(profile: str, models: Sequence[str]) -> list[str]:
    """The stages of rows, as DVC names them."""
    return [f"{stage}@{profile}-{model}" for model in models for stage in STAGES]


def options_of(texts: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE as numbers where they are some. Raises: StageError naming a text of another form."""
    options: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise StageError(f"--option {text}: write NAME=VALUE")
        options[name] = int(value) if value.isdecimal() else value
    return options


def reason(error: UncompletedJobError, log: Path) -> str:
    """Why a job failed: the last line of its traceback, or, if it was killed, of what it printed."""
    if isinstance(error, FailedJobError):
        parts = re.split(r"^-{10,}$", str(error), flags=re.MULTILINE)  # submitit's own words around the traceback
        return parts[len(parts) // 2].strip().splitlines()[-1].removeprefix("dgm.errors.StageError: ")
    return f"its process was ended; {last_line(log)}"


def table(profile: str, models: Sequence[str], outcomes: dict[str, str]) -> str:
    """One line a row: its test figure, and how it ended."""
    lines = [("Row", "Test bits", "Outcome")]
    for model in models:
        metrics = read_record(RunFiles(profile, model).metrics, Metrics)
        outcome = outcomes.get(model, "was up to date")
        bits = "" if metrics is None or outcome.startswith("failed") else f"{metrics.test_bits_per_subpixel:.3f}"
        lines.append((model, bits, outcome))
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    return "\n".join(f"{name:{widths[0]}}  {bits:{widths[1]}}  {outcome}".rstrip() for name, bits, outcome in lines)


if __name__ == "__main__":
    run_stage(main)
