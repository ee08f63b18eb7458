"""How far a stage is: a bar in a terminal, a plain line now and then anywhere else (logs, CI, queued experiments).

Whoever starts a stage and names a file in DGM_PROGRESS_FILE finds the same there, anew every second: so `make run`
shows several stages side by side.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pydantic import TypeAdapter
from tqdm import tqdm

from dgm.small_files import read_small

LINE_SECONDS = 15.0
FILE_SECONDS = 1.0
FILE_VARIABLE = "DGM_PROGRESS_FILE"
Item = TypeVar("Item")


@dataclass(frozen=True)
class Position:
    """How far a stage is. stage: as DVC names it; fraction, seconds_left: None while unknown."""

    stage: str
    text: str
    fraction: float | None
    seconds_left: float | None


class ProgressFile:
    """The file that DGM_PROGRESS_FILE names; without the variable, and where it cannot be written, nothing."""

    def __init__(self) -> None:
        self._path = os.environ.get(FILE_VARIABLE) if is_shown() else None
        self._written_at = -math.inf

    def update(self, text: str, fraction: float | None, seconds_left: float | None) -> None:
        """Replaces the file, at most once a second."""
        now = time.monotonic()
        if self._path is None or now - self._written_at < FILE_SECONDS:
            return
        self._written_at = now
        position = Position(os.environ.get("DVC_STAGE", ""), text, fraction, seconds_left)
        try:
            new = Path(f"{self._path}.new")
            new.write_text(json.dumps(asdict(position)), encoding="utf-8")
            new.replace(self._path)
        except OSError:  # a result is worth more than the sight of it
            self._path = None


def read_position(path: Path) -> Position | None:
    """What a stage has written to its file; None before that."""
    try:
        return TypeAdapter(Position).validate_json(read_small(path))
    except (OSError, ValueError):
        return None


class Progress:
    """Progress of a training loop that ends after `total_steps` or `max_seconds`, whichever comes first."""

    def __init__(self, total_steps: int, description: str, max_seconds: float | None) -> None:
        self.total_steps, self.description, self.max_seconds = total_steps, description, max_seconds
        self._bar: tqdm[Any] | None = None
        self._printed_at = time.monotonic()
        self._latest = ""
        self._is_printed = True
        self._file = ProgressFile()

    def __enter__(self) -> Progress:
        if has_bar():
            shape = "{desc} |{bar}| {postfix}"
            self._bar = tqdm(total=1.0, desc=self.description, bar_format=shape, dynamic_ncols=True, file=sys.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif not self._is_printed:
            self._print_latest()

    def update(
        self,
        step: int,
        images_per_second: float,
        train_bits: float,
        validation_bits: float | None,
        learning_rate: float,
        seconds: float,
    ) -> None:
        """Shows the state after `step` steps and `seconds` of training over all sessions; bits are per sub-pixel."""
        fraction, seconds_left = self._fraction_and_seconds_left(step, seconds)
        validation = "" if validation_bits is None else f", validation {validation_bits:.3f}"
        self._latest = (
            f"{fraction:.0%}, step {step:,}/{self.total_steps:,}, {images_per_second:,.0f} images/s, "
            f"train {train_bits:.3f}{validation} bits per sub-pixel, "
            f"learning rate {learning_rate:.2g}, {clock(seconds_left)} left"
        )
        self._is_printed = False
        self._file.update(f"step {step:,}, train {train_bits:.3f}{validation} bits", fraction, seconds_left)
        if self._bar is not None:
            self._bar.set_postfix_str(self._latest, refresh=False)
            self._bar.update(fraction - self._bar.n)
        elif time.monotonic() - self._printed_at >= LINE_SECONDS:
            self._print_latest()

    def _fraction_and_seconds_left(self, step: int, seconds: float) -> tuple[float, float | None]:
        fraction = min(1.0, step / self.total_steps)
        left = seconds / step * (self.total_steps - step) if step else None
        if self.max_seconds is not None:
            fraction = min(1.0, max(fraction, seconds / self.max_seconds))
            left = min(self.max_seconds - seconds, self.max_seconds if left is None else left)
        return fraction, left

    def _print_latest(self) -> None:
        if is_shown():
            print(f"{self.description}: {self._latest}", file=sys.stderr, flush=True)
        self._printed_at = time.monotonic()
        self._is_printed = True


def track(iterable: Iterable[Item], total: int, description: str, unit: str) -> Iterator[Item]:
    """The items of `iterable`, unchanged, with the progress over `total` of them shown."""
    if not is_shown():
        yield from iterable
        return
    if has_bar():
        yield from tqdm(iterable, total=total, desc=description, unit=unit, dynamic_ncols=True, file=sys.stderr)
        return
    began = printed_at = time.monotonic()
    count, file = 0, ProgressFile()
    for count, item in enumerate(iterable, start=1):
        yield item
        now = time.monotonic()
        left = (now - began) / count * max(0, total - count)
        file.update(f"{description}: {unit} {count:,}/{total:,}", min(1.0, count / max(1, total)), left)
        if now - printed_at >= LINE_SECONDS and count < total:
            print(f"{description}: {unit} {count:,}/{total:,}, {clock(left)} left", file=sys.stderr, flush=True)
            printed_at = now
    seconds = time.monotonic() - began
    print(f"{description}: {unit} {count:,}/{total:,} after {clock(seconds)}", file=sys.stderr, flush=True)


def is_shown() -> bool:
    """Of several processes that a launcher started for one piece of work (dgm/ranks.py), only the first shows it."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK") == "0"


def has_bar() -> bool:
    """Whether there is a terminal to draw a bar in."""
    return is_shown() and sys.stderr.isatty()


def clock(seconds: float | None) -> str:
    """A duration as 12:34 or 1:02:03; a question mark while unknown."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
