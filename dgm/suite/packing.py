"""Which files of a suite travel, and in which order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from dgm.registry import MODELS
from dgm.runs.files import RunFiles
from dgm.suite.parts import PART_BYTES, Entry, pack
from dgm.suite.rounding import packed
from dgm.suite.row import Row, log_file, read_row, row_file

SMALL_BYTES = 2**20


def pack_suite(profile: str, folder: Path, first: int, count: int) -> list[Path]:
    """Parts `first` to `first + count - 1`: records, curves, samples, nats and logs of every row, then weights.

    Of the weights, those with the most seconds of training a byte come first: a few large files would take the place of
    all others. Logs of failed rows travel too.
    """
    rows = [row for model in MODELS if (row := read_row(profile, model)) is not None]
    return pack(entries(profile, rows), folder, time.time_ns(), first, count)


def entries(profile: str, rows: Sequence[Row]) -> list[Entry]:
    """Small files row by row, then weights, then what else is large (the compressed images of the simplest models)."""
    small: list[Entry] = []
    large: list[Entry] = []
    for row in rows:
        small.append(_entry(row_file(profile, row.model)))
        paths = [Path(path) for files in row.files.values() for path in files if path != row.weights]
        for path in paths:
            (small if path.stat().st_size <= SMALL_BYTES else large).append(_entry(path))
    small += [_entry(log) for model in MODELS if (log := log_file(profile, model)).exists()]
    return small + [_weights(RunFiles(profile, row.model).weights) for row in sorted(rows, key=_dearth)] + large


def _dearth(row: Row) -> float:
    """Bytes of weights for a second of training."""
    return RunFiles(row.profile, row.model).weights.stat().st_size / row.seconds["train"]


def _entry(path: Path) -> Entry:
    return Entry(path.as_posix(), path.read_bytes)


def _weights(path: Path) -> Entry:
    return Entry(path.as_posix(), lambda: packed(path))


def num_parts(paths: Sequence[Path]) -> str:
    """How many parts, and their size, in words."""
    size = sum(path.stat().st_size for path in paths)
    return f"{len(paths)} parts of at most {PART_BYTES / 2**20:g} MiB, {size / 2**20:.1f} MiB in all"
