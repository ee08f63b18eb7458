"""Files of a project that are read whole: what is none is refused before it can hang or fill the memory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LARGEST = 64 * 2**20  # bytes; the largest, dvc.lock and the report's tables, have a few hundred thousand


def is_there(path: Path) -> bool:
    """Whether anything has this name: a link that leads nowhere is no absent file, its reader says what it is."""
    return os.path.lexists(path)


def read_small(path: Path) -> bytes:
    """The bytes of a file. Raises: OSError; one without a number if it is a pipe or device or larger than LARGEST."""
    check_regular(path)
    if (size := path.stat().st_size) > LARGEST:
        raise OSError(f"{size // 2**20} MiB, more than the {LARGEST // 2**20} MiB that it can have")
    return path.read_bytes()


def check_regular(path: Path) -> None:
    """Raises: OSError without a number if it is a pipe or a device, whose end may not come; else the system's."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError("a pipe or a device, not a file")
