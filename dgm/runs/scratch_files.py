"""The files under .scratch/<profile>/<model>/: their names, what is left of trainings that did not end, deleting it.

Imports no torch, so that a listing is quick.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dgm.runs.locks import FileLock, LockHeldError, holder, is_held, remove_if_empty

MAGIC = b"dgm checkpoint 2\n"
STEP_BYTES = 8
LOCK_WAIT_SECONDS = 1.0  # a listing may hold a lock for an instant
NAME = re.compile(r"\.?(?P<key>[A-Za-z0-9_-]+)\.(lock|pt|previous\.pt|incoming\.pt(\.[^.]+)*)")


@dataclass(frozen=True)
class LeftKey:
    """What one key of (profile, model) has in the scratch folder.

    step: optimizer steps or EM iterations done, None without a readable checkpoint; age_seconds: since the newest
    file was written; holder: id of the process that works on it, None if there is none.
    """

    profile: str
    model: str
    key: str
    step: int | None
    age_seconds: float
    num_bytes: int
    holder: str | None


def checkpoint_header(step: int | None, digest: bytes) -> bytes:
    """What stands before the content of a checkpoint file: a mark, the SHA-256 of all that follows, the step."""
    return MAGIC + digest + encode_step(step)


def encode_step(step: int | None) -> bytes:
    return (-1 if step is None else step).to_bytes(STEP_BYTES, "little", signed=True)


def step_of(path: Path) -> int | None:
    """The step in the header of a checkpoint file; None if there is no such file or it has none."""
    num_bytes = len(MAGIC) + 32 + STEP_BYTES
    try:
        with path.open("rb") as file:
            header = file.read(num_bytes)
    except OSError:
        return None
    if len(header) < num_bytes or not header.startswith(MAGIC):
        return None
    step = int.from_bytes(header[-STEP_BYTES:], "little", signed=True)
    return step if step >= 0 else None


def files_of(folder: Path, key: str) -> list[Path]:
    """Every file of `key` but its lock: checkpoints and what a killed write left."""
    if not folder.is_dir():
        return []
    matches = ((path, NAME.fullmatch(path.name)) for path in folder.iterdir())
    return sorted(path for path, match in matches if match and match["key"] == key and match[2] != "lock")


def unfinished_files(folder: Path, key: str) -> list[Path]:
    """What a write of `key` left that was killed inside."""
    return [path for path in files_of(folder, key) if ".incoming.pt" in path.name]


def left_keys(root: Path) -> list[LeftKey]:
    """All keys under the scratch folder `root`, by profile, model and age, the newest first."""
    left = [left_key(root, *place) for place in sorted(places(root))]
    found = [key for key in left if key is not None]
    return sorted(found, key=lambda key: (key.profile, key.model, key.age_seconds))


def left_key(root: Path, profile: str, model: str, key: str) -> LeftKey | None:
    """What `key` has; None if its files have gone meanwhile."""
    folder = root / profile / model
    lock = folder / f"{key}.lock"
    stats: list[os.stat_result] = []
    for path in [*files_of(folder, key), lock]:
        try:
            stats.append(path.stat())
        except FileNotFoundError:
            continue
    if not stats:
        return None
    steps = (step_of(folder / f"{key}{suffix}") for suffix in (".pt", ".previous.pt"))
    return LeftKey(
        profile,
        model,
        key,
        next((step for step in steps if step is not None), None),
        max(0.0, time.time() - max(stat.st_mtime for stat in stats)),
        sum(stat.st_size for stat in stats),
        holder(lock) if is_held(lock) else None,
    )


def clear_key(root: Path, left: LeftKey) -> int | None:
    """Bytes freed by deleting the files of a key; None if a process works on it. Raises: OSError naming a file."""
    folder = root / left.profile / left.model
    lock = FileLock(folder / f"{left.key}.lock")
    try:
        lock.acquire(LOCK_WAIT_SECONDS)
    except LockHeldError:
        return None
    num_bytes = 0
    try:
        for path in files_of(folder, left.key):
            num_bytes += path.stat().st_size
            path.unlink()
    finally:
        lock.release(remove=True)
    remove_if_empty(folder.parent)
    return num_bytes


def places(root: Path) -> Iterator[tuple[str, str, str]]:
    """(profile, model, key) of everything under `root` whose name is that of a scratch file."""
    seen: set[tuple[str, str, str]] = set()
    for path in root.glob("*/*/*"):
        match = NAME.fullmatch(path.name)
        if match is not None and path.is_file():
            seen.add((path.parent.parent.name, path.parent.name, match["key"]))
    yield from seen
