"""Checkpoints that let a killed training run go on: outside DVC's outputs, whole or absent, checked when read."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dgm.errors import StageError
from dgm.runs.atomic import atomic_file
from dgm.runs.files import project_root

MAGIC = b"dgm checkpoint 1\n"
DIGEST_BYTES = hashlib.sha256().digest_size
PLAIN_TYPES = (int, float, bool, str, type(None))


class Scratch:
    """The scratch folder of one (profile, model), for one process at a time.

    Entering takes the folder's lock and deletes what other keys left there: a key stands for code, data and
    parameters, so a checkpoint of another key can never be resumed. `<key>.pt` is the newest checkpoint and
    `<key>.previous.pt` the one before.
    """

    def __init__(self, profile: str, model: str, key: str, root: Path | None = None) -> None:
        self.profile, self.model = profile, model
        self.folder = (root or project_root() / ".scratch") / profile / model
        self._newest = self.folder / f"{key}.pt"
        self._previous = self.folder / f"{key}.previous.pt"
        self._incoming = self.folder / f"{key}.incoming.pt"
        self._lock_file = self.folder / "lock"
        self._lock: BinaryIO | None = None

    @property
    def path(self) -> Path | None:
        """The last good checkpoint; None before the first."""
        return next((path for path in (self._newest, self._previous) if path.exists()), None)

    def __enter__(self) -> Scratch:
        """Raises: StageError if another process holds the folder or it cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._lock_file.open("a+b")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._lock_file.read_text().strip() or "unknown"
            self._unlock()
            raise StageError(
                f"another process is already training {self.model} ({self.profile}): process {holder} holds "
                f"{self._lock_file}; wait for it or stop it, then run `dvc repro` again"
            ) from None
        except OSError as error:
            self._unlock()
            raise StageError(f"{self._lock_file}: cannot be locked ({error.strerror})") from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()).encode())
        self._lock.flush()
        for leftover in self.folder.iterdir():
            if leftover not in (self._newest, self._previous, self._lock_file) and leftover.is_file():
                leftover.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unlock()

    def save(self, state: dict[str, Any]) -> None:
        """Writes a checkpoint beside the last one, which becomes the fall-back.

        Raises: TypeError naming an entry that load() would refuse; StageError if it cannot be written (disk full), in
        which case the last checkpoint is untouched.
        """
        check_plain(state, "state")
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getbuffer()
        try:
            with atomic_file(self._incoming) as file:
                file.write(MAGIC + hashlib.sha256(payload).digest())
                file.write(payload)
            if self._newest.exists():
                os.replace(self._newest, self._previous)
            os.replace(self._incoming, self._newest)
        except OSError as error:
            raise StageError(
                f"{self._newest}: the checkpoint was not written ({error.strerror or error}); the one before it is "
                "intact: make room, then run `dvc repro` again to go on from there"
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
                raise StageError(f"{path}: the checkpoint cannot be read ({error.strerror})") from None
            except ValueError as error:
                problems.append(f"{path}: damaged checkpoint ({error})")
                continue
            if problems:
                print(f"warning: {problems[0]}; going on from {path}", file=sys.stderr, flush=True)
            if path == self._previous:
                os.replace(self._previous, self._newest)
            return state
        if problems:
            raise StageError(f"{'; '.join(problems)}; delete {self.folder} to start again")
        return None

    def clear(self) -> None:
        """Deletes the checkpoints: the stage's outputs have been written."""
        for path in (self._newest, self._previous, self._incoming):
            path.unlink(missing_ok=True)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint file. Raises: OSError; ValueError saying what is wrong with the file's content."""
    content = memoryview(path.read_bytes())
    start = len(MAGIC) + DIGEST_BYTES
    if bytes(content[: len(MAGIC)]) != MAGIC:
        raise ValueError("no checkpoint header")
    payload = content[start:]
    if hashlib.sha256(payload).digest() != bytes(content[len(MAGIC) : start]):
        raise ValueError("checksum does not match: truncated or altered")
    try:
        return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"not plain tensors and numbers: {type(error).__name__}") from None


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
