"""Stages as processes that can be killed, starved and timed: forks of one that has imported everything.

A stage in a fork begins in no time, where `python -m stages.NAME` takes seconds to import torch. `in_python` starts it
that way too: the campaign does so for a sample.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from dgm.runs.termination import end_at_once
from tests.faults.images import accept_images, write_here

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT_SECONDS = 120.0  # of a stage in the smoke profile; one that takes longer hangs
WHOSE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
VARIABLES = {"MLFLOW_TRACKING_URI": "none", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
Preparation = Callable[[], None]  # what a trial does to the process of the stage, before the stage


@dataclass(frozen=True)
class Attempt:
    """How a command ended. code: its exit code, negative for a signal, None if it hung and was ended."""

    command: tuple[str, ...]
    code: int | None
    output: str
    errors: str
    seconds: float

    @property
    def said(self) -> str:
        """Everything that it printed."""
        return self.output + self.errors


class Running:
    """A stage in a process, and in a process group, of its own."""

    def __init__(self, project: Path, command: Sequence[str], process: BaseProcess) -> None:
        self.command, self._process, self._logs = tuple(command), process, logs_of(project, process)
        self._began = time.monotonic()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def has_ended(self) -> bool:
        return self._process.exitcode is not None

    def send(self, number: signal.Signals) -> None:
        """The signal, unless it has ended."""
        if not self.has_ended():
            os.kill(self.pid, number)

    def wait(self, limit_seconds: float = LIMIT_SECONDS) -> Attempt:
        """Its end; one that takes longer is killed, with all that it started."""
        self._process.join(limit_seconds)
        code = self._process.exitcode
        if code is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.join()
        seconds = time.monotonic() - self._began
        for path in self._logs:
            path.touch()  # one that was killed before it could begin has none
        output, errors = (path.read_text(encoding="utf-8", errors="replace") for path in self._logs)
        for path in self._logs:
            path.unlink()
        return Attempt(self.command, code, output, errors, seconds)


def logs_of(project: Path, process: BaseProcess) -> tuple[Path, Path]:
    """Where a process of the project writes what it prints: beside the project, not in it."""
    return project.with_name(f"{project.name}.{process.name}.out"), project.with_name(
        f"{project.name}.{process.name}.err"
    )


def start(
    project: Path,
    command: Sequence[str],
    prepare: Preparation | None = None,
    variables: Mapping[str, str] | None = None,
) -> Running:
    """Starts a stage in the project's folder. command: as after `python -m`."""
    arguments = (project, tuple(command), prepare, dict(variables or {}))
    process = multiprocessing.get_context("fork").Process(target=_be_stage, args=arguments)
    process.start()
    return Running(project, command, process)


def run(
    project: Path,
    command: Sequence[str],
    prepare: Preparation | None = None,
    variables: Mapping[str, str] | None = None,
    limit_seconds: float = LIMIT_SECONDS,
) -> Attempt:
    """Starts a stage and waits for its end."""
    return start(project, command, prepare, variables).wait(limit_seconds)


def in_python(project: Path, command: Sequence[str], variables: Mapping[str, str] | None = None) -> Attempt:
    """The same by a new Python, as a user starts it."""
    began = time.monotonic()
    environment = {**os.environ, **VARIABLES, "DVC_ROOT": str(project), "PYTHONPATH": str(ROOT), **(variables or {})}
    line = [sys.executable, "-m", "tests.faults.images", *command]
    try:
        ended = subprocess.run(
            line, cwd=project, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Attempt(tuple(command), None, "", "", time.monotonic() - began)
    return Attempt(tuple(command), ended.returncode, ended.stdout, ended.stderr, time.monotonic() - began)


def core_seconds() -> float:
    """Processor time of this process and of those that it has waited for."""
    return sum(time.ru_utime + time.ru_stime for time in map(resource.getrusage, WHOSE))


def survivors(group: int) -> list[int]:
    """Processes of a group that still run, by id."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text(encoding="utf-8").rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(its_group) == group and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def processes_in(folder: Path) -> list[int]:
    """Processes whose current folder it is, by id."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.readlink() == folder:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def _be_stage(
    project: Path, command: tuple[str, ...], prepare: Preparation | None, variables: Mapping[str, str]
) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the campaign may ignore them
        signal.signal(number, signal.SIG_DFL)
    end_at_once()  # as the import of `stages` does in a Python of its own
    for stream, path in zip((sys.stdout, sys.stderr), logs_of(project, multiprocessing.current_process()), strict=True):
        stream.flush()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    os.environ.update({**VARIABLES, "DVC_ROOT": str(project), "PYTHONPATH": str(ROOT), **variables})
    os.chdir(project)
    accept_images()
    write_here()
    sys.argv = list(command)
    if prepare is not None:
        prepare()
    sys.modules.pop(command[0], None)  # imported before the fork; it runs as the main module now
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
