"""One row of the table as a job of a cluster: its stages of the pipeline, one after the other, as DVC runs them.

`python -m stages.submit` sends it. A job that is about to be stopped interrupts its stage, which writes a checkpoint,
and queues itself anew; so does one whose training ends with exit code 75.
"""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from dgm.errors import StageError
from dgm.runs.locks import FileLock
from dgm.suite.row import STAGES
from stages.cli import PAUSED
from stages.dvc_command import command, environment, interrupt_and_wait, is_paused, last_line

WAIT_SECONDS = 7 * 24 * 3600.0  # for the same row in another job


def job_folder(profile: str, model: str) -> Path:
    """Where a row's jobs leave their logs; `submitit/` in it is submitit's own."""
    return Path(".work") / "submit" / profile / model


def log_file(profile: str, model: str) -> Path:
    """What the stages of the row printed, in all its jobs."""
    return job_folder(profile, model) / "log.txt"


@dataclass
class RowJob:
    """The job. remote: a DVC remote that gets the results of each stage, or None. process: the running stage."""

    profile: str
    model: str
    remote: str | None
    process: list[int] = field(default_factory=list[int])

    def __call__(self) -> None:
        """Runs what is not up to date. Raises: StageError with the last line of the stage that failed."""
        signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # a background job's stages would inherit that it is ignored
        lock = FileLock(job_folder(self.profile, self.model) / "lock")
        lock.acquire(WAIT_SECONDS)
        for stage in STAGES:
            target = f"{stage}@{self.profile}-{self.model}"
            code = self._run(command("repro", "-s", target))
            if code == PAUSED:
                name = f"SIG{JobEnvironment.USR_SIG}"
                signal.raise_signal(getattr(signal, name))  # as before a time limit: submitit calls `checkpoint`
            if code:
                raise StageError(f"{target}: {last_line(log_file(self.profile, self.model))}")
            if self.remote is not None and self._run(command("push", "-r", self.remote, target)):
                raise StageError(f"{target}: not pushed: {last_line(log_file(self.profile, self.model))}")
        lock.release(remove=False)

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit before the job is stopped: pauses the stage, as Ctrl-C does. What to run next time."""
        for number in self.process:
            interrupt_and_wait(number)
        return DelayedSubmission(RowJob(self.profile, self.model, self.remote))

    def _run(self, arguments: list[str]) -> int:
        """Exit code of the command, or that of the stage in it if it paused. What it prints goes to the log."""
        log = log_file(self.profile, self.model)
        log.parent.mkdir(parents=True, exist_ok=True)
        begins = log.stat().st_size if log.exists() else 0
        # a cluster may send the signal to every process of a job: it is for this one, which then interrupts the stage
        ignoring = ["sh", "-c", f'trap "" {JobEnvironment.USR_SIG}; exec "$@"', "sh", *arguments]
        with log.open("ab") as file:
            process = subprocess.Popen(
                ignoring, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=environment(), start_new_session=True
            )
        self.process[:] = [process.pid]
        try:
            code = process.wait()
        except BaseException:  # the submitter cancels, or the job is stopped
            interrupt_and_wait(process.pid)
            raise
        finally:
            self.process.clear()
        with log.open("rb") as file:
            file.seek(begins)
            return PAUSED if code and is_paused(file.read()) else code
