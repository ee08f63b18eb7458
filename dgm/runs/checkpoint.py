"""Checkpoints that let a killed training run go on: outside DVC's outputs, whole or absent, checked when read."""

from __future__ import annotations

import hashlib
import io
import math
import os
import sys
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from dgm.errors import StageError
from dgm.runs.atomic import atomic_file
from dgm.runs.files import project_root
from dgm.runs.locks import FileLock, LockHeldError
from dgm.runs.scratch_files import (
    LOCK_WAIT_SECONDS,
    MAGIC,
    STEP_BYTES,
    checkpoint_header,
    encode_step,
    files_of,
    unfinished_files,
)
from dgm.runs.system_errors import errno_of, reason_of, remedy_for, unreadable
from dgm.small_files import check_regular

DIGEST_BYTES = hashlib.sha256().digest_size
REPAIR = "make its folder writable"
PLAIN_TYPES = (int, float, bool, str, type(None))
KINDS: dict[str, type] = {  # of the entries that training reads before its first step
    **dict.fromkeys(("step", "iteration", "images_seen", "interval_images"), int),
    **dict.fromkeys(("seconds", "startup_seconds"), float),
    **dict.fromkeys(("model", "average"), dict),
    **dict.fromkeys(("curve", "optimizers"), list),
    "run": str,
    "interval_nats": Tensor,
}


class Scratch:
    """The scratch files of one key of (profile, model), for one process at a time.

    A key stands for code, data and parameters, so any number of settings of one model live side by side: nothing here
    touches the files of another key. `<key>.pt` is the newest checkpoint, `<key>.previous.pt` the one before,
    `<key>.lock` says that a process works on the key. Entering removes what a killed write of this key left; leaving
    removes the lock's file unless a checkpoint remains.
    """

    def __init__(self, profile: str, model: str, key: str, root: Path | None = None) -> None:
        self.profile, self.model = profile, model
        self.folder = (root or project_root() / ".scratch") / profile / model
        self._key = key
        self._newest = self.folder / f"{key}.pt"
        self._previous = self.folder / f"{key}.previous.pt"
        self._incoming = self.folder / f"{key}.incoming.pt"
        self._lock = FileLock(self.folder / f"{key}.lock")

    @property
    def path(self) -> Path | None:
        """The last good checkpoint; None before the first."""
        return next((path for path in (self._newest, self._previous) if path.exists()), None)

    def __enter__(self) -> Scratch:
        """Raises: StageError if another process holds the key or the folder cannot be written."""
        try:
            self._lock.acquire(LOCK_WAIT_SECONDS)
            for leftover in unfinished_files(self.folder, self._key):
                leftover.unlink()
        except LockHeldError as error:
            raise StageError(
                f"another process is already training {self.model} ({self.profile}) with the same settings: process "
                f"{error.holder} holds {error.path}; wait for it or stop it, then run `dvc repro` again"
            ) from None
        except OSError as error:
            self._lock.release(remove=False)
            remedy = f"make {self.folder} writable"
            raise StageError(
                f"{self._lock.path}: cannot be locked ({reason_of(error)}); {remedy_for(error, remedy, remedy)}"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release(remove=self.path is None)

    def save(self, state: dict[str, Any]) -> None:
        """Writes a checkpoint beside the last one, which becomes the fall-back.

        Raises: TypeError naming an entry that load() would refuse; StageError if it cannot be written (disk full), in
        which case the last checkpoint is untouched.
        """
        check_plain(state, "state")
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getbuffer()
        step: int | None = state.get("step", state.get("iteration"))
        try:
            with atomic_file(self._incoming) as file:
                file.write(checkpoint_header(step, digest_of(encode_step(step), payload)))
                file.write(payload)
            if self._newest.exists():
                os.replace(self._newest, self._previous)
            os.replace(self._incoming, self._newest)
        except OSError as error:
            raise StageError(
                f"{self._newest}: the checkpoint was not written ({error.strerror or error}); the one before it is "
                f"intact: {remedy_for(error, REPAIR, REPAIR)}, then run `dvc repro` again to go on from there"
            ) from None

    def load(self) -> dict[str, Any] | None:
        """The last good checkpoint, on the CPU; None if there is none. Pickled code is never executed.

        Raises: StageError naming the file if every checkpoint is damaged, or one cannot be read.
        """
        problems: list[str] = []
        for path in (self._newest, self._previous):
            try:
                state = read_checkpoint(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StageError(
                    f"{path}: the checkpoint {unreadable(error, 'run `dvc repro`', 'is damaged')}"
                ) from None
            except ValueError as error:
                problems.append(f"{path}: damaged checkpoint ({error})")
                continue
            if problems:
                print(f"warning: {problems[0]}; going on from {path}", file=sys.stderr, flush=True)
            if path == self._previous:
                os.replace(self._previous, self._newest)
            return state
        if problems:
            raise StageError(
                f"{'; '.join(problems)}; `python -m stages.checkpoints --clear {self._key}` deletes them: training "
                "then starts again"
            )
        return None

    def unfit(self, error: Exception) -> str:
        """What to say of a checkpoint that is whole but cannot be taken over."""
        reason = " ".join(str(error).split())[:200]
        return (
            f"{self.path}: a checkpoint that does not fit this training ({type(error).__name__}: {reason}); "
            f"`python -m stages.checkpoints --clear {self._key}` deletes it: training then starts again"
        )

    def clear(self) -> None:
        """Deletes the checkpoints: the stage's outputs have been written."""
        for path in files_of(self.folder, self._key):
            path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint file. Raises: OSError; ValueError saying what is wrong with the file's content."""
    check_regular(path)
    content = memoryview(path.read_bytes())
    start = len(MAGIC) + DIGEST_BYTES
    if bytes(content[: len(MAGIC)]) != MAGIC:
        raise ValueError("no checkpoint header")
    payload = content[start + STEP_BYTES :]
    if digest_of(content[start : start + STEP_BYTES], payload) != bytes(content[len(MAGIC) : start]):
        raise ValueError("checksum does not match: truncated or altered")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        check_plain(state, "state")
    except Exception as error:  # a file made up to harm raises anything
        if errno_of(error) is not None:  # memory is used up: the file may be whole
            raise
        raise ValueError(f"not plain tensors and numbers: {type(error).__name__}") from None
    if not isinstance(state, dict):
        raise ValueError(f"holds no state but {type(state).__name__}")
    for name, kind in KINDS.items():
        if name in state and (not isinstance(state[name], kind) or isinstance(state[name], bool)):
            raise ValueError(f"its {name} is no {kind.__name__}")
        if kind in (int, float) and name in state and not 0 <= state[name] < math.inf:
            raise ValueError(f"its {name} is {state[name]}")
    return state


def digest_of(step: bytes | memoryview, payload: memoryview) -> bytes:
    """SHA-256 of a checkpoint's step and content, 32 bytes."""
    digest = hashlib.sha256(step)
    digest.update(payload)
    return digest.digest()


def check_plain(value: Any, where: str) -> None:
    """Raises: TypeError naming the entry that is neither a tensor, a number, a text nor a container of those."""
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            check_plain(key, f"key {key!r} of {where}")
            check_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            check_plain(item, f"{where}[{index}]")
    elif type(value) not in PLAIN_TYPES and not isinstance(value, Tensor):
        raise TypeError(f"{where}: a checkpoint holds tensors, numbers and texts, not {type(value).__name__}")
