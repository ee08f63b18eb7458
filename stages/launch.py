"""Starts a stage again as several processes of this machine that work together, as `torchrun --standalone` would.

Torchrun itself ends with exit code 1 and a page of text, however its processes ended; here a pause stays a pause (75),
and a lost process is one line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

import torch
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from dgm.errors import StageError
from dgm.ranks import AGAIN, is_first_report, is_launched

VARIABLE = "DGM_PROCESSES"
HOST = "127.0.0.1"
LOOK_SECONDS = 0.1
END_SECONDS = 30.0  # for the other processes, once one has failed


def start_processes(limit: int, device: str) -> None:
    """Does the stage in several processes and leaves this one with their exit code; returns if one is enough.

    limit: how many can work together at most. How many do is DGM_PROCESSES, or else the number of GPUs.
    Raises: StageError if DGM_PROCESSES is no number.
    """
    if is_launched():
        return
    if (count := min(limit, num_processes(os.environ.get(VARIABLE), device))) > 1:
        raise SystemExit(supervise([sys.executable, *sys.orig_argv[1:]], count))


def num_processes(wanted: str | None, device: str) -> int:
    """What the variable says, or one for each GPU, or one."""
    if not wanted:
        return torch.cuda.device_count() if device == "cuda" else 1
    if not wanted.isascii() or not wanted.isdigit() or int(wanted) == 0:
        raise StageError(
            f"{VARIABLE}={wanted}: must be a whole number from 1; it says how many processes share a model"
        )
    return int(wanted)


def supervise(command: Sequence[str], count: int) -> int:
    """Runs the command as `count` ranks; their exit code. Ctrl-C and SIGTERM reach them as SIGTERM."""
    store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    processes = [start_rank(command, rank, count, store.port) for rank in range(count)]
    previous: dict[signal.Signals, object] = {}

    def forward(number: int, frame: FrameType | None) -> None:
        send(processes, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, forward)
    try:
        rank, code = first_end(processes)
        if code < 0 and is_first_report(store, "launcher"):
            name = signal.Signals(-code).name
            print(f"error: rank {rank} of {count} was ended by {name}; {AGAIN}", file=sys.stderr, flush=True)
        return code if code >= 0 else 128 - code  # as a shell says it
    finally:
        end(processes)
        for number, handler in previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave


def start_rank(command: Sequence[str], rank: int, count: int, port: int) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C in a terminal reaches only the process that waits for it."""
    place = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": HOST,
        "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": "stage",  # what torch takes for the mark of a launcher
        "TORCHELASTIC_USE_AGENT_STORE": True,
    }
    environment = os.environ | {name: str(value) for name, value in place.items()}
    return subprocess.Popen(command, env=environment, start_new_session=True)


def first_end(processes: Sequence[subprocess.Popen[bytes]]) -> tuple[int, int]:
    """The rank and exit code of the first process that fails or pauses; (0, 0) once all have ended well."""
    while True:
        codes = [process.poll() for process in processes]
        killed = [(rank, code) for rank, code in enumerate(codes) if code is not None and code < 0]
        failed = [(rank, code) for rank, code in enumerate(codes) if code]
        if killed or failed:
            return (killed or failed)[0]
        if all(code == 0 for code in codes):
            return 0, 0
        time.sleep(LOOK_SECONDS)


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """SIGTERM to those that still run, SIGKILL to those that do so after END_SECONDS."""
    send(processes, signal.SIGTERM)
    until = time.monotonic() + END_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def send(processes: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)
