"""What the operating system refuses, in words, and the remedy that fits the cause: one that does not may do harm."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping

from dgm.errors import StageError

NETWORK_DISK = "its network disk does not answer: wait, or mount it again"
MEMORY = "stop other programs, run fewer models at a time, or lower batch_size in params.yaml"
REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: "make room on its disk",
    errno.EDQUOT: "make room: the quota on its disk is used up",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "stop other programs: the machine has no more open files to give",
    errno.ENOMEM: MEMORY,
    errno.EAGAIN: "stop other programs: the limit on processes or locks is reached (ulimit -u)",
    errno.EIO: "check its disk, which reports an error",
    errno.ENODEV: "check its disk, which is gone",
    errno.ESTALE: NETWORK_DISK,
    errno.ETIMEDOUT: NETWORK_DISK,
    errno.ENOTCONN: NETWORK_DISK,
    errno.EHOSTDOWN: NETWORK_DISK,
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ELOOP: "remove the link that leads to itself",
}
NO_FILE: Mapping[int, str] = {  # what stands where a file is to be read
    errno.ENOENT: "remove the link, which leads nowhere",
    errno.EISDIR: "move the folder away: a file is expected",
    errno.ENOTDIR: "move away what stands there in place of a folder",
}
ACCESS = (errno.EACCES, errno.EPERM)
NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|unable to mmap .*\(12\)", re.IGNORECASE)
NO_THREAD = "can't start new thread"


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


def errno_of(error: BaseException) -> int | None:
    """The system's error number, also where a library hides it; None if the system refused nothing."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if hidden := re.search(r"\(os error (\d+)\)", text):  # how Rust's libraries say it
        return int(hidden[1])
    if "requested and" in text and text.endswith("written"):  # how numpy says that a disk is full
        return errno.ENOSPC
    if isinstance(error, RuntimeError) and NO_THREAD in text:
        return errno.EAGAIN
    return errno.ENOMEM if isinstance(error, RuntimeError) and NO_MEMORY.search(text) else None


def remedy_for(error: BaseException, otherwise: str, access: str = "make it readable") -> str:
    """What to do about an error while a file was used.

    access: for a file that its owner or its folder forbids to use. otherwise: where the system refused nothing, so that
    the file itself is what is wrong.
    """
    number = errno_of(error)
    if number is None:
        return otherwise
    if number == errno.EROFS:
        return f"{access}, or use another place: its disk is mounted read-only"
    return access if number in ACCESS else REMEDIES.get(number, otherwise)


def unreadable(error: BaseException, remedy: str, damaged: str = "damaged") -> str:
    """What is wrong with a file that was not read. Only a damaged one is to be deleted, before `remedy`."""
    number = errno_of(error)
    if number is None:
        return f"{damaged} ({reason_of(error)}); delete it and {remedy}"
    return f"cannot be read ({reason_of(error)}); {remedy_for(error, NO_FILE.get(number, 'look what it is'))}"


def shortage(error: BaseException) -> str | None:
    """One line about memory, threads or open files that are used up, whoever raised it; None for any other error."""
    number = errno_of(error)
    if number not in (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN):
        return None
    what = "memory is used up" if number == errno.ENOMEM else "the system gives no more"
    return f"{what} ({reason_of(error)}); {REMEDIES[number]}"


def line_of(error: Exception) -> str | None:
    """What the user reads of an error that ends a command; None for a mistake of the program, which has a traceback."""
    if isinstance(error, StageError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return shortage(error)
