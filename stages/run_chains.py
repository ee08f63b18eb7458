"""Chains of stages side by side, each in a session of processes of its own, with a log and a file of its progress."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dgm.runs.progress import FILE_VARIABLE, Position, read_position
from dgm.tracking.secrets import VARIABLE as STORE_VARIABLE
from dgm.tracking.untracked_run import OFF
from stages.dvc_command import LOOK_SECONDS, command, environment, interrupt, is_paused, last_line
from stages.own_gpu import own_gpu
from stages.run_plan import Chain


def folder_of(profile: str, name: str) -> Path:
    """Where a chain leaves its log and the file of its progress."""
    return Path(".work") / "run" / profile / name


def log_file(profile: str, name: str) -> Path:
    """What the stages of the chain printed when it last ran."""
    return folder_of(profile, name) / "log.txt"


class Chains:
    """The chains that wait and those that run; `jobs` at a time, each on a GPU of its own where there are several."""

    def __init__(self, profile: str, chains: Sequence[Chain], jobs: int, gpus: Sequence[str]) -> None:
        self.waiting = list(chains)
        self._profile, self._jobs, self._gpus = profile, jobs, gpus
        self._running: dict[int, tuple[Chain, subprocess.Popen[bytes]]] = {}

    @property
    def are_left(self) -> bool:
        return bool(self.waiting or self._running)

    @property
    def running(self) -> list[Chain]:
        """In the order of their places, which does not change while they run."""
        return [self._running[slot][0] for slot in sorted(self._running)]

    def start_next(self) -> Chain | None:
        """The chain that has begun now; None if no place is free or none waits."""
        if not self.waiting or len(self._running) >= self._jobs:
            return None
        slot = next(number for number in range(self._jobs) if number not in self._running)
        chain = self.waiting.pop(0)
        folder = folder_of(self._profile, chain.name)
        folder.mkdir(parents=True, exist_ok=True)
        progress = folder.resolve() / "progress.json"
        progress.unlink(missing_ok=True)
        variables = environment() | own_gpu(slot, self._gpus) | {FILE_VARIABLE: str(progress)}
        process = start(command("repro", "-q", "-s", *chain.targets), log_file(self._profile, chain.name), variables)
        self._running[slot] = (chain, process)
        return chain

    def take_ended(self) -> list[tuple[Chain, str | None]]:
        """The chains that have ended since the last call, and why those failed that did."""
        ended: list[tuple[Chain, str | None]] = []
        for slot, (chain, process) in list(self._running.items()):
            if (code := process.poll()) is not None:
                del self._running[slot]
                ended.append((chain, failure(code, log_file(self._profile, chain.name))))
        return ended

    def position(self, chain: Chain) -> Position | None:
        """How far a running chain is; None before its first stage has said so."""
        return read_position(folder_of(self._profile, chain.name) / "progress.json")

    def stop(self) -> None:
        """Interrupts what runs, as Ctrl-C does, and waits: a training writes its checkpoint. A second Ctrl-C kills."""
        processes = [process for _, process in self._running.values()]
        try:
            told: set[int] = set()
            while running := [process for process in processes if process.poll() is None]:
                for process in running:
                    interrupt(process.pid, told)
                time.sleep(LOOK_SECONDS)
        finally:
            for process in processes:
                if process.poll() is None:
                    send(process, signal.SIGKILL)
                    process.wait()
            self._running.clear()


class PageWriter:
    """Rewrites the report in the background, one process at a time, for at most a part of the time."""

    PART = 0.15  # it takes one core for half a minute, which the models that run beside it lack

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._process: subprocess.Popen[bytes] | None = None
        self._is_wanted = False
        self._began, self._next_at = 0.0, 0.0

    def want(self) -> None:
        """There is something new to show."""
        self._is_wanted = True

    def look(self, now: float) -> bool:
        """Starts the next writing if it is time; True once for each that has succeeded. now: seconds of one clock."""
        if self._process is not None and (code := self._process.poll()) is not None:
            self._process = None
            self._next_at = self._began + (now - self._began) / self.PART
            return code == 0
        if self._is_wanted and self._process is None and now >= self._next_at:
            self._is_wanted, self._began = False, now
            variables = environment() | {STORE_VARIABLE: OFF}  # the pipeline's own report stage records the results
            self._process = start(report_command(self._profile), log_file(self._profile, "page"), variables)
        return False

    def stop(self) -> None:
        """Ends a writing that runs; files are replaced whole, so that the page of before or the new one is there."""
        if self._process is not None:
            send(self._process, signal.SIGTERM)
            self._process.wait()
            self._process = None


def report_command(profile: str) -> list[str]:
    """The report without DVC, which would hold the lock that the chains need."""
    return [sys.executable, "-m", "stages.report", "--profile", profile]


def start(words: Sequence[str], log: Path, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """A command that Ctrl-C in the terminal does not reach; what it prints goes to the log, which begins anew."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=variables, start_new_session=True
        )


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """A signal to the command and to all that it has started."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def failure(code: int, log: Path) -> str | None:
    """Why a chain of DVC failed: the stage, and the last line of what it printed; None if it did not."""
    if code == 0:
        return None
    text = log.read_text(encoding="utf-8", errors="replace")
    if is_paused(text.encode()):
        return "its training was stopped from outside and has written a checkpoint"
    stage = re.search(r"failed to reproduce '(\w+)@", text)
    reason = last_line(log).removeprefix("error: ") or f"exit code {code}"
    return f"{stage[1]}: {reason}" if stage else reason
