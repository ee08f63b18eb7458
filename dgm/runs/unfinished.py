"""Files that are being written: where they are until they are whole, and removing those whose writer was killed.

A writer holds a lock on its file, which the system frees when the process ends, however it ends. Those of a project are
in .scratch/tmp, where neither git nor DVC looks; elsewhere, and on another disk, they are beside the file that they are
to become, under names that .gitignore and .dvcignore list.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from dgm.runs.files import project_root

SUFFIX = ".dgm-tmp"  # short: the name of the result goes before it
PROJECT_FILE = "dvc.yaml"  # a folder without it is no project: nothing but the result is written there
PROBE_BYTES = 4096


class Unfinished:
    """A new file that will be renamed to `target`, open and locked. Raises: OSError."""

    def __init__(self, target: Path) -> None:
        while True:
            descriptor, name = _make(target)
            try:
                _lock(descriptor)
                if _is_named(descriptor, name):  # else it was removed before it was locked
                    break
            except BaseException:
                os.close(descriptor)
                Path(name).unlink(missing_ok=True)
                raise
            os.close(descriptor)
        self.path = Path(name)
        self.file = os.fdopen(descriptor, "wb")


def scratch_folder() -> Path:
    """Where the unfinished files of the project are."""
    return project_root() / ".scratch" / "tmp"


def remove_unfinished(folder: Path, target: str = "") -> None:
    """Deletes the files in `folder` whose writer is dead; with `target`, only those that were to get this name."""
    prefix = f".{target}." if target else "."
    try:
        names = [name for name in os.listdir(folder) if name.startswith(prefix) and name.endswith(SUFFIX)]
    except OSError:
        return
    _remove_dead(folder / name for name in names)


def probe(folder: Path, target: str) -> None:
    """Writes a little into a file in `folder` that could become `target`, and removes it.

    Raises: OSError, of a full disk and of a name that is too long, too.
    """
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{target}.", suffix=SUFFIX)
    try:
        os.write(descriptor, bytes(PROBE_BYTES))
    finally:
        os.close(descriptor)
        os.unlink(name)


def _make(target: Path) -> tuple[int, str]:
    prefix = f".{target.name}."
    scratch, beside = scratch_folder(), target.parent
    if _is_of_project(beside, scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        if scratch.stat().st_dev == beside.stat().st_dev:  # a file moves whole only within one disk
            return tempfile.mkstemp(dir=scratch, prefix=prefix, suffix=SUFFIX)
    return tempfile.mkstemp(dir=beside, prefix=prefix, suffix=SUFFIX)


def _is_of_project(folder: Path, scratch: Path) -> bool:
    root, place = scratch.parent.parent, folder.resolve()
    in_scratch = place.is_relative_to(scratch.parent)
    return (root / PROJECT_FILE).exists() and place.is_relative_to(root) and not in_scratch


def _lock(descriptor: int) -> None:
    """A disk without locks has none: nothing is removed from it either."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return


def _is_named(descriptor: int, name: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name))
    except FileNotFoundError:
        return False


def _remove_dead(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except OSError:  # its writer is at work, it has just got its name, or it is somebody else's
            continue
