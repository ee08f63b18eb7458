"""Lists the checkpoints of trainings that did not end, and deletes them with --clear.

A training that is paused or was killed continues from its checkpoint when the same command is given again; one whose
settings or code have changed since begins anew, and leaves its checkpoint here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dgm.errors import StageError
from dgm.runs.files import project_root
from dgm.runs.scratch_files import LeftKey, clear_key, left_keys
from stages.cli import run_stage

HEADER = ("profile", "model", "key", "step", "age", "size", "running")
UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clear", nargs="*", metavar="KEY|PROFILE/MODEL", help="delete these, unless they are running")
    parser.add_argument("--all", action="store_true", help="with --clear: delete all that are not running")
    arguments = parser.parse_args()
    root = project_root() / ".scratch"
    left = left_keys(root)
    if arguments.clear is None:
        if arguments.all:
            raise StageError("--all goes with --clear: `python -m stages.checkpoints --clear --all`")
        print(table(left) if left else f"no checkpoints in {root}")
        return
    freed = 0
    for key in chosen(left, arguments.clear, arguments.all):
        name = f"{key.profile}/{key.model} {key.key}"
        num_bytes = clear_key(root, key)
        print(f"{name}: running, kept" if num_bytes is None else f"{name}: deleted, {size(num_bytes)}")
        freed += num_bytes or 0
    print(f"freed {size(freed)}")


def chosen(left: Sequence[LeftKey], names: Sequence[str], is_all: bool) -> list[LeftKey]:
    """The keys that are meant. Raises: StageError naming one that is not there, or if nothing was named."""
    if bool(names) == is_all:
        raise StageError("--clear: name keys or PROFILE/MODEL as the list shows them, or give --all instead")
    known = {name for key in left for name in (key.key, f"{key.profile}/{key.model}")}
    for name in names:
        if name not in known:
            raise StageError(
                f"--clear {name[:80]}: no such key or PROFILE/MODEL; `python -m stages.checkpoints` lists them"
            )
    return [key for key in left if is_all or {key.key, f"{key.profile}/{key.model}"} & set(names)]


def table(left: Sequence[LeftKey]) -> str:
    """One line per key under a header, in aligned columns."""
    rows = [HEADER, *(row(key) for key in left)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(HEADER))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in rows)


def row(key: LeftKey) -> tuple[str, ...]:
    step = "-" if key.step is None else str(key.step)
    running = "no" if key.holder is None else f"process {key.holder}"
    return key.profile, key.model, key.key, step, age(key.age_seconds), size(key.num_bytes), running


def age(seconds: float) -> str:
    """In the largest unit of which there is at least one."""
    return next((f"{seconds / length:.0f} {unit}" for unit, length in UNITS if seconds >= length), f"{seconds:.0f} s")


def size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"


if __name__ == "__main__":
    run_stage(main)
