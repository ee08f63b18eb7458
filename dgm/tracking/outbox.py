"""Records on their way to the tracking store: sent in the background, kept while the store is away.

Training only ever appends to a queue, so a slow or vanished server costs it no time and changes no number.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

MAX_ENTRIES_IN_BATCH = 1000
MAX_OTHERS_IN_BATCH = 100
MAX_PAUSE_SECONDS = 120.0


@dataclass(frozen=True)
class Entry:
    """One thing to record.

    value: a number for a metric, text for a param or tag, the path of an artifact (key: its folder in the run), or the
    run's final status.
    """

    kind: Literal["metric", "param", "tag", "artifact", "status"]
    key: str
    value: float | str
    step: int
    timestamp_ms: int


class RejectedError(Exception):
    """The store is there and will never take this batch."""


class Outbox:
    """Delivers entries in order, every `interval_seconds`; after a failure the pauses double up to two minutes.

    `deliver` gets a batch that the store takes in one call (see `next_batch`). It raises RejectedError if
    sending the batch again is pointless, and anything else if it is worth another try.
    """

    def __init__(self, deliver: Callable[[Sequence[Entry]], None], interval_seconds: float) -> None:
        self._deliver = deliver
        self._interval_seconds = interval_seconds
        self._waiting: deque[Entry] = deque()
        self._rejected: list[Entry] = []
        self._num_failures = 0
        self._last_error = ""
        self._is_closing = False
        self._is_urgent = False
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    @property
    def last_error(self) -> str:
        """Why the latest batch was not delivered; empty if none failed."""
        return self._last_error

    def put(self, entries: Iterable[Entry]) -> None:
        with self._condition:
            self._waiting.extend(entries)

    def flush(self, seconds: float) -> bool:
        """True once everything put so far is with the store; False at the first failure or after `seconds`."""
        with self._condition:
            if self._num_failures == 0:
                self._is_urgent = True
                self._condition.notify_all()
            self._condition.wait_for(lambda: not self._waiting or self._num_failures > 0, timeout=seconds)
            return not self._waiting

    def close(self, seconds: float) -> list[Entry]:
        """Everything that could not be delivered within `seconds` of trying; the outbox takes nothing more."""
        with self._condition:
            self._is_closing = True
            self._condition.notify_all()
            self._condition.wait_for(lambda: not self._waiting, timeout=seconds)
            left = [*self._rejected, *self._waiting]
            self._waiting.clear()
            self._condition.notify_all()
        self._thread.join(timeout=1.0)
        return left

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._is_urgent or self._is_closing, timeout=self._pause_seconds())
                self._is_urgent = False
                if self._is_closing and not self._waiting:
                    return
                batch = next_batch(self._waiting)
            while batch and self._send(batch):
                with self._condition:
                    batch = next_batch(self._waiting)
            if self._is_closing and self._waiting:
                time.sleep(min(1.0, self._interval_seconds))

    def _pause_seconds(self) -> float:
        return min(self._interval_seconds * 2**self._num_failures, max(MAX_PAUSE_SECONDS, self._interval_seconds))

    def _send(self, batch: Sequence[Entry]) -> bool:
        """True if the batch is off the queue: delivered, or set aside because the store refuses it."""
        try:
            self._deliver(batch)
            failure, is_rejected = "", False
        except Exception as error:  # a lost server must not end a training run, whatever its client raises
            failure, is_rejected = root_cause(error), isinstance(error, RejectedError)
        with self._condition:
            self._last_error = failure or self._last_error
            is_done = not failure or is_rejected
            self._num_failures = 0 if is_done else self._num_failures + 1
            if is_rejected:
                self._rejected.extend(batch)
            if is_done:
                for _ in range(min(len(batch), len(self._waiting))):
                    self._waiting.popleft()
            self._condition.notify_all()
        return is_done


def next_batch(entries: Iterable[Entry]) -> list[Entry]:
    """The longest head of `entries` that the store takes in one call.

    An artifact or a status goes alone; else up to 1000 entries, of which up to 100 params and tags.
    """
    batch: list[Entry] = []
    num_metrics = 0
    for entry in entries:
        if entry.kind in ("artifact", "status"):
            return batch or [entry]
        num_metrics += entry.kind == "metric"
        if len(batch) == MAX_ENTRIES_IN_BATCH or len(batch) + 1 - num_metrics > MAX_OTHERS_IN_BATCH:
            break
        batch.append(entry)
    return batch


def keep_undelivered(path: Path, entries: Iterable[Entry]) -> None:
    """Appends the entries to a JSON-lines file, one object a line with the fields of Entry."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(entry)) + "\n" for entry in entries)
        file.flush()
        os.fsync(file.fileno())


def root_cause(error: BaseException) -> str:
    """One line: the innermost cause that the text of a network error quotes, else the text itself."""
    text = " ".join(str(error).split())
    _, is_nested, cause = text.rpartition("(Caused by ")
    return f"{type(error).__name__}: {cause.removesuffix(')')[:300] if is_nested else text[:300]}"
