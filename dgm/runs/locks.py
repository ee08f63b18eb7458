"""Locks between processes: one file per lock, held by flock, removed when it protects nothing any more."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path

RETRY_SECONDS = 0.02
SILENT_SECONDS = 2.0  # a wait that is longer says so


class LockHeldError(Exception):
    """Another process holds the lock. `holder`: its process id as text, or "unknown"."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path}: held by process {holder}")
        self.path, self.holder = path, holder


class FileLock:
    """An exclusive lock, held from acquire() to release(); the system frees it when its process ends.

    The file may be removed while other processes wait for it: a lock on a file that is no longer under its name
    protects nothing, so acquire() compares the locked file with the named one and tries again if they differ.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Of the held lock: a process that gets it by `pass_fds` holds the lock too, until it ends."""
        return () if self._descriptor is None else (self._descriptor,)

    def acquire(self, wait_seconds: float) -> None:
        """Makes the folder and the file if need be, and writes the process id into it.

        A wait of over two seconds says on stderr for whom it waits, and how long at most.
        Raises: LockHeldError if another process holds the lock for `wait_seconds`; OSError (folder not writable).
        """
        began, is_silent = time.monotonic(), True
        while not self._try():
            waited = time.monotonic() - began
            if waited >= wait_seconds:
                raise LockHeldError(self.path, holder(self.path))
            if is_silent and waited >= SILENT_SECONDS:
                line = f"waiting for process {holder(self.path)}, which holds {self.path}, {wait_seconds:.0f} s at most"
                print(line, file=sys.stderr, flush=True)
                is_silent = False
            time.sleep(RETRY_SECONDS)

    def release(self, remove: bool) -> None:
        """Frees the lock; `remove` deletes its file first, and its folder if that is empty then."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            if remove:
                self.path.unlink(missing_ok=True)
                remove_if_empty(self.path.parent)
        finally:
            os.close(descriptor)

    def _try(self) -> bool:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # the folder was removed after it was made
            return False
        except FileExistsError:
            if self.path.parent.is_file():
                raise
            return False  # the folder was removed while it was made
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = os.path.samestat(os.fstat(descriptor), os.stat(self.path))
            if is_held:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except (BlockingIOError, FileNotFoundError):
            is_held = False
        except BaseException:
            os.close(descriptor)
            raise
        if is_held:
            self._descriptor = descriptor
        else:
            os.close(descriptor)
        return is_held


def holder(path: Path) -> str:
    """The process id written in a lock's file, as text; "unknown" if there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or "unknown"
    except OSError:
        return "unknown"


def is_held(path: Path) -> bool:
    """True if a process holds the lock of `path` now. Creates nothing. Raises: OSError if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove_if_empty(folder: Path) -> None:
    """Removes a folder that holds nothing; leaves any other."""
    try:
        folder.rmdir()
    except OSError:  # not empty, or already gone
        return
