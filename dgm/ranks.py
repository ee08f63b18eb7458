"""The processes that train or evaluate one model together, and what they tell each other.

A process is a rank if torchrun or stages/launch.py started it, with the variables that torchrun documents (RANK,
WORLD_SIZE, MASTER_ADDR ...); any other is alone. Sums are in place and end with the same bits on every rank.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from dgm.errors import StageError

TIMEOUT = timedelta(minutes=30)  # of one exchange: a rank may prepare, search kernels or write a checkpoint meanwhile
AGAIN = "the same command goes on from the last checkpoint"
LAUNCHER_SECONDS = 1.0  # in which a launcher has seen which process ended first
ANSWER_SECONDS = 5.0
LOOK_SECONDS = 0.1
REPORTED = "reported"
Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """rank: the number of this process among `count`; store: where they meet, None for a process that is alone."""

    rank: int = 0
    count: int = 1
    store: dist.Store | None = None  # pyright: ignore[reportPrivateImportUsage]

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the files."""
        return self.rank == 0

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by its sum over the ranks; one exchange for all of one type."""
        if self.count == 1:
            return
        of_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            of_type.setdefault(tensor.dtype, []).append(tensor)
        for same in of_type.values():
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in same])
            with self._exchange():
                dist.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in same])
            for tensor, part in zip(same, parts, strict=True):
                tensor.detach().copy_(part.view(tensor.shape))

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by that of rank 0."""
        for tensor in tensors if self.count > 1 else ():
            whole = tensor.detach().contiguous()
            with self._exchange():
                dist.broadcast(whole, 0)
            tensor.detach().copy_(whole)

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, in their order; anything that can be pickled."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        with self._exchange():
            dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Returns once all ranks have called it."""
        self.gather(None)

    def leave(self) -> None:
        """Waits for the others, and ends the connection."""
        self.wait()
        if self.count > 1:
            dist.destroy_process_group()

    def is_reporter(self) -> bool:
        """Whether this rank is the first to say why the work ends: the others are silent."""
        return self.store is None or is_first_report(self.store, str(self.rank))

    @contextmanager
    def _exchange(self) -> Generator[None]:
        """Raises: StageError if another rank has ended."""
        try:
            yield
        except RuntimeError as error:
            if missing := self._missing():
                raise StageError(f"rank {' and '.join(map(str, missing))} has ended or hangs; {AGAIN}") from None
            raise StageError(f"the ranks cannot reach each other ({first_line(error)})") from None

    def _missing(self) -> list[int]:
        """The ranks that do not notice within ANSWER_SECONDS that an exchange has failed."""
        assert self.store is not None
        began = time.monotonic()
        missing = list(range(self.count))
        try:
            self.store.set(f"alive/{self.rank}", "")
            time.sleep(LAUNCHER_SECONDS)
            while len(missing) > 1 and time.monotonic() - began < ANSWER_SECONDS:
                missing = [rank for rank in missing if not self.store.check([f"alive/{rank}"])]
                time.sleep(LOOK_SECONDS)
        except RuntimeError:  # the launcher, which keeps the store, is gone
            return []
        return missing


ALONE = Ranks()


@lru_cache(maxsize=1)
def this_rank() -> Ranks:
    """The place of this process; the first call connects it with the others.

    Raises: StageError if they cannot be reached.
    """
    if not is_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        return ALONE
    try:
        store, rank, count = next(rendezvous("env://", timeout=TIMEOUT))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)
    except (RuntimeError, ValueError, KeyError) as error:
        raise StageError(
            f"rank {os.environ.get('RANK')}: cannot join the other processes ({first_line(error)})"
        ) from None
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    return Ranks(rank, count, store)


def reported(error: str) -> str | None:
    """The error with the rank that it happened on; None if another rank has reported one already."""
    if not this_rank.cache_info().currsize or (ranks := this_rank()).count == 1:
        return error
    return f"rank {ranks.rank} of {ranks.count}: {error}" if ranks.is_reporter() else None


def first_line(error: Exception) -> str:
    """What torch says, without the places in its code that it adds."""
    return str(error).strip().partition("\n")[0][:200]


def is_launched() -> bool:
    """Whether a launcher started this process as a rank."""
    return dist.is_torchelastic_launched()


def is_first_report(store: dist.Store, reporter: str) -> bool:  # pyright: ignore[reportPrivateImportUsage]
    """Whether nobody before `reporter` has said why the work ends."""
    try:
        return store.compare_set(REPORTED, "", reporter) == reporter.encode()
    except RuntimeError:  # the launcher, which keeps the store, is gone
        return False


def take_place(ranks: Ranks, device: torch.device) -> None:
    """Takes this rank's GPU, or its part of the threads that the process was given.

    Raises: StageError if there are more ranks on this machine than GPUs.
    """
    if ranks.count == 1:
        return
    local, local_count = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if device.type == "cuda":
        if local_count > torch.cuda.device_count():
            raise StageError(f"{local_count} processes on {torch.cuda.device_count()} GPUs; start one a GPU at most")
        torch.cuda.set_device(local)
    torch.set_num_threads(max(1, torch.get_num_threads() // local_count))


def _end_with(launcher: int) -> None:
    """Stops this process as SIGTERM does once its launcher is gone, also by SIGKILL."""
    while os.getppid() == launcher:
        time.sleep(LAUNCHER_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
