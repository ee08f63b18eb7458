"""Runs a function in several processes that are ranks of one another, on this machine, over gloo."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from dgm.ranks import Ranks

HOST = "127.0.0.1"


def in_ranks(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(ranks, *arguments)` returns on each rank, in order. Raises: EOFError if one ends without a result.

    The processes are forks of a server that has imported torch, so that each starts in no time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.processes", "tests.tiny", "torch._dynamo"])
    store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [
        context.Process(target=_be_rank, args=(sender, rank, count, store.port, work, arguments), daemon=True)
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, sender in pipes:
        sender.close()
    try:
        return [torch.load(io.BytesIO(receiver.recv_bytes()), weights_only=False) for receiver, _ in pipes]
    finally:
        for process in processes:
            process.join()


def _be_rank(
    sender: Connection, rank: int, count: int, port: int, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    store = TCPStore(HOST, port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
    buffer = io.BytesIO()
    torch.save(
        work(Ranks(rank, count, store), *arguments), buffer
    )  # as bytes: pickled, tensors stay with their process
    sender.send_bytes(buffer.getvalue())
    dist.destroy_process_group()
