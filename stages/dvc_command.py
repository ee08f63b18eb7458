"""DVC as stages call it: one command, one line if it fails; and what dvc.lock says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from dgm.config.document import FAST_LOADER, MAX_DEPTH_OF_DVC, too_deep
from dgm.errors import StageError
from stages.cli import PAUSED

LOCK_FILE = Path("dvc.lock")
LONGEST_LINE = 200
LOOK_SECONDS = 0.2  # how often what runs is looked at


def dvc(*arguments: str) -> str:
    """What a DVC command prints; its stages get this environment's Python.

    Raises: StageError with its last line, or that of the stage that failed.
    """
    done = subprocess.run(command(*arguments), capture_output=True, text=True, env=environment())
    if done.returncode:
        printed = done.stderr or done.stdout
        lines = own_lines(printed) or printed.strip().splitlines() or ["no message"]
        raise StageError(f"dvc {arguments[0]} failed: {lines[-1].removeprefix('error: ')}")
    return done.stdout


def own_lines(printed: str) -> list[str]:
    """What a stage itself printed: DVC says afterwards that it failed."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", printed)]
    return [line for line in lines if line and not line.startswith(("ERROR: failed to reproduce", "Use `dvc push`"))]


def command(*arguments: str) -> list[str]:
    """The command line; it waits while another process of DVC writes."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]


def environment() -> dict[str, str]:
    """The environment, with this Python first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path}


def locked_stages() -> Mapping[str, Any]:
    """Stage name -> what dvc.lock says of it. Raises: StageError if it cannot be read."""
    try:
        text = LOCK_FILE.read_bytes().decode("utf-8")
        if (line := too_deep(text)) is not None:
            raise ValueError(f"more than {MAX_DEPTH_OF_DVC} levels are nested in line {line}")
        return yaml.load(text, FAST_LOADER)["stages"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, RecursionError) as error:
        what = " ".join(str(error).split())[:200]
        raise StageError(f"{LOCK_FILE}: cannot be read ({what}); `git checkout {LOCK_FILE}`") from None


def interrupt(number: int, told: set[int]) -> None:
    """Ctrl-C for all that a DVC process has started and that is not in `told`, where they are noted.

    DVC itself gets none: it notices how its stage ends, and while it writes dvc.lock it would leave half of it.
    """
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(number).children(recursive=True):
            if process.pid not in told:
                told.add(process.pid)
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGINT)


def interrupt_and_wait(number: int) -> None:
    """Interrupts whatever this DVC process starts until it has ended; its exit code is left to its parent."""
    told: set[int] = set()
    with suppress(ChildProcessError):
        while os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            interrupt(number, told)
            time.sleep(LOOK_SECONDS)


def is_paused(printed: bytes) -> bool:
    """Whether DVC says that the stage ended with exit code 75."""
    return stage_code(printed) == PAUSED


def stage_code(printed: bytes) -> int | None:
    """The exit code of the stage that failed, as DVC says it last; None if it does not."""
    codes = re.findall(rb"exited with (\d+)\b", printed)
    return int(codes[-1]) if codes else None


def last_line(log: Path) -> str:
    """Of what the stage itself printed: DVC says afterwards that it failed. Empty if there is none."""
    if not log.exists():
        return ""
    own = own_lines(log.read_text(encoding="utf-8", errors="replace"))
    return own[-1][:LONGEST_LINE] if own else ""
