"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dgm.errors import StageError
from dgm.runs.system_errors import errno_of, reason_of, remedy_for, unreadable
from dgm.runs.termination import hold_signals, release_signals
from dgm.runs.unfinished import Unfinished, probe, remove_unfinished
from dgm.small_files import check_regular

WRITABLE = "make the folder writable"


@contextmanager
def atomic_file(path: Path) -> Generator[BinaryIO]:
    """A binary file that appears under `path` whole, or not at all.

    Raises: OSError naming the path (disk full, folder read-only) and the remedy; the temporary file is removed.
    """
    hold_signals()  # one that came between making the file and the `try` that removes it would leave it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Unfinished(path)
    except BaseException as error:
        release_signals()
        if not isinstance(error, OSError):
            raise
        remedy = remedy_for(error, WRITABLE, WRITABLE)
        raise OSError(error.errno, f"{error.strerror}: {remedy}", str(path)) from None
    try:
        release_signals()
        with unfinished.file as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(unfinished.path, 0o644)
            os.replace(unfinished.path, path)  # while it is locked: nobody takes it for a dead writer's
    except BaseException as error:
        unfinished.path.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(unfinished.path)):
            remedy = remedy_for(error, "", WRITABLE)
            text = f"{reason_of(error)}: nothing was written" + (f"; {remedy}" if remedy else "")
            raise OSError(errno_of(error), text, str(path)) from None
        raise


def check_writable(*paths: Path) -> None:
    """Makes sure that files can be written under these names, before the work that fills them; leaves nothing behind.

    What a killed write of one of them left beside it is removed.
    Raises: StageError naming the path and what is in its way.
    """
    for path in paths:
        try:
            folder = path.parent
            while not folder.exists():
                folder = folder.parent
            if path.is_dir():
                raise StageError(f"{path}: is a folder; name a file")
            if not folder.is_dir():
                raise StageError(f"{path}: cannot be written, because {folder} is not a folder; name another one")
            remove_unfinished(folder, path.name)
            probe(folder, path.name)
        except OSError as error:
            remedy = remedy_for(error, "make its folder writable", "make its folder writable")
            raise StageError(f"{path}: cannot be written ({reason_of(error)}); {remedy}") from None


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as file:
        file.write(text.encode("utf-8"))


def write_array(path: Path, array: np.ndarray) -> None:
    """A .npy file, readable with numpy.load(path, allow_pickle=False)."""
    with atomic_file(path) as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path, remedy: str) -> np.ndarray:
    """The array of a .npy file. Raises: StageError naming the file and the remedy if it is absent or damaged."""
    try:
        check_regular(path)
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise StageError(f"{path}: absent; {remedy}") from None
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise StageError(f"{path}: {unreadable(error, remedy)}") from None


def array_digest(array: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and values, as hex digits: changes with their order too."""
    values = np.ascontiguousarray(array)
    return hashlib.sha256(f"{values.dtype.str}{values.shape}".encode() + values.tobytes()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_of(*parts: Mapping[str, Any] | str) -> str:
    """Sixteen hex digits that change with any part: names scratch checkpoints and marks metrics as current."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
