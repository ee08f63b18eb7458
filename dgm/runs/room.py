"""Is there room for what a stage will write? Asked before the work, for it is lost if the disk is full at its end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from dgm.errors import StageError


def check_room(needs: Mapping[Path, int]) -> None:
    """needs: bytes that will be written under each path; those on one disk are added up.

    Raises: StageError naming the place whose disk has less, by how much, and the remedy.
    """
    places: dict[int, Path] = {}
    sums: dict[int, int] = {}
    for path, num_bytes in needs.items():
        folder = existing(path)
        device = os.stat(folder).st_dev
        places.setdefault(device, path)
        sums[device] = sums.get(device, 0) + num_bytes
    for device, path in places.items():
        free = shutil.disk_usage(existing(path)).free
        if free < sums[device]:
            raise StageError(
                f"{path}: its disk has {in_megabytes(free)} free, and {in_megabytes(sums[device])} are needed until "
                "the end; make room on it"
            )


def existing(path: Path) -> Path:
    """The nearest of the path and the folders above it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def in_megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
