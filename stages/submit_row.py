"""One row of the table as a job of a cluster: its stages of the pipeline, one after the other, as DVC runs them.

`python -m stages.submit` sends it. A job that is about to be stopped interrupts its stage, which writes a checkpoint,
and queues itself anew; so does one whose training ends with exit code 75. One whose MLflow server or DVC remote is away
tries again for an hour.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from dgm.errors import StageError
from dgm.runs.locks import FileLock
from dgm.suite.row import STAGES
from stages.cli import AWAY, PAUSED
from stages.dvc_command import command, environment, interrupt_and_wait, last_line, stage_code

WAIT_SECONDS = 7 * 24 * 3600.0  # for the same row in another job
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0  # seconds before what did not succeed is tried again, each twice the last one
PATIENCE_SECONDS = 3600.0  # with a server or a remote that is away
NOT_PUSHED = 1  # exit code of `dvc push`, whatever the reason


def job_folder(profile: str, model: str) -> Path:
    """Where a row's jobs leave their logs; `submitit/` in it is submitit's own."""
    return Path(".work") / "submit" / profile / model


def log_file(profile: str, model: str) -> Path:
    """What the stages of the row printed, in all its jobs."""
    return job_folder(profile, model) / "log.txt"


def pause_file(profile: str, model: str) -> Path:
    """Is there when the row's last job has paused; not when it was killed."""
    return job_folder(profile, model) / "paused"


@dataclass
class RowJob:
    """The job. remote: a DVC remote that gets the results of each stage, or None. process: the running stage.

    variables: of the environment of its stages, in place of the job's own; None: not set.
    """

    profile: str
    model: str
    remote: str | None
    variables: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    process: list[int] = field(default_factory=list[int])
    lock: FileLock | None = None

    def __call__(self) -> None:
        """Runs what is not up to date. Raises: StageError with the last line of the stage that failed."""
        signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # a background job's stages would inherit that it is ignored
        self.lock = FileLock(job_folder(self.profile, self.model) / "lock")
        self.lock.acquire(WAIT_SECONDS)
        pause_file(self.profile, self.model).unlink(missing_ok=True)
        for stage in STAGES:
            target = f"{stage}@{self.profile}-{self.model}"
            code = self._run_patiently(command("repro", "-s", target), AWAY)
            if code == PAUSED:
                name = f"SIG{JobEnvironment.USR_SIG}"
                signal.raise_signal(getattr(signal, name))  # as before a time limit: submitit calls `checkpoint`
            if code:
                raise StageError(f"{target}: {last_line(log_file(self.profile, self.model))}")
            if self.remote is not None and self._run_patiently(command("push", "-r", self.remote, target), NOT_PUSHED):
                raise StageError(f"{target}: not pushed: {last_line(log_file(self.profile, self.model))}")
        self.lock.release(remove=False)

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit before the job is stopped: pauses the stage, as Ctrl-C does. What to run next time."""
        for number in self.process:
            interrupt_and_wait(number)
        pause_file(self.profile, self.model).touch()
        return DelayedSubmission(RowJob(self.profile, self.model, self.remote, self.variables))

    def _run_patiently(self, arguments: list[str], away: int) -> int:
        """As `_run`; what ends with the exit code `away` is tried again, at growing intervals, for PATIENCE_SECONDS."""
        deadline, pause = time.monotonic() + PATIENCE_SECONDS, FIRST_PAUSE
        while (code := self._run(arguments)) == away and time.monotonic() < deadline:
            with log_file(self.profile, self.model).open("a", encoding="utf-8") as file:
                print(f"tries again in {pause:.0f} s", file=file)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return code

    def _run(self, arguments: list[str]) -> int:
        """Exit code of the command, or that of the stage in it if that failed. What it prints goes to the log."""
        log = log_file(self.profile, self.model)
        log.parent.mkdir(parents=True, exist_ok=True)
        begins = log.stat().st_size if log.exists() else 0
        # a cluster may send the signal to every process of a job: it is for this one, which then interrupts the stage
        ignoring = ["sh", "-c", f'trap "" {JobEnvironment.USR_SIG}; exec "$@"', "sh", *arguments]
        variables = {name: value for name, value in {**environment(), **self.variables}.items() if value is not None}
        held = () if self.lock is None else self.lock.descriptors  # so that the lock outlives a job that is killed
        with log.open("ab") as file:
            process = subprocess.Popen(
                ignoring,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                env=variables,
                start_new_session=True,
                pass_fds=held,
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
            return code and (stage_code(file.read()) or code)
