"""Records on their way to the tracking store: sent in the background, kept while the store is away.

Training only ever appends to a queue, so a slow or vanished server costs it no time and changes no number.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

MAX_ENTRIES_IN_BATCH = 1000
MAX_OTHERS_IN_BATCH = 100
MAX_PAUSE_SECONDS = 120.0


@dataclass(frozen=True)
class Entry:
    """One thing to record.

    value: a number for a metric, text for a param or a tag, the path of an artifact (key: its folder in the run), or
    the run's final status.
    """

    kind: Literal["metric", "param", "tag", "artifact", "status"]
    key: str
    value: float | str
    step: int
    timestamp_ms: int


class RejectedError(Exception):
    """The store is there and will never take this batch."""


class Outbox:
    """Delivers entries every `interval_seconds`; after a failure the pauses double up to two minutes.

    Three lanes: metrics, params and tags in order; then the run's status; then artifacts. What cannot be delivered
    holds back nothing else: a refused batch is cut down to the entries that are refused, and these are set aside; an
    artifact that fails is tried again later.

    `deliver` gets a batch that the store takes in one call (see `next_batch`). It raises RejectedError if
    sending the batch again is pointless, and anything else if it is worth another try.
    """

    def __init__(self, deliver: Callable[[Sequence[Entry]], None], interval_seconds: float) -> None:
        self._deliver = deliver
        self._interval_seconds = interval_seconds
        self._records: deque[Entry] = deque()
        self._status: deque[Entry] = deque()
        self._artifacts: deque[Entry] = deque()
        self._rejected: list[Entry] = []
        self._num_failures = 0
        self._is_stalled = False
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
            for entry in entries:
                self._lane_of(entry).append(entry)

    def flush(self, seconds: float) -> bool:
        """True once all metrics, params and tags put so far are with the store; False at the first failure or after
        `seconds`, and then at once until something gets through."""
        with self._condition:
            if self._num_failures == 0:
                self._is_urgent = True
                self._condition.notify_all()
            wait = 0.0 if self._is_stalled else seconds
            self._condition.wait_for(lambda: not self._records or self._num_failures > 0, timeout=wait)
            self._is_stalled = bool(self._records)
            return not self._records

    def close(self, seconds: float) -> list[Entry]:
        """Everything that could not be delivered within `seconds` of trying; the outbox takes nothing more."""
        with self._condition:
            self._is_closing = True
            self._condition.notify_all()
            self._condition.wait_for(lambda: not self._is_waiting(), timeout=seconds)
            left = [*self._rejected, *self._records, *self._artifacts, *self._status]
            for lane in (self._records, self._artifacts, self._status):
                lane.clear()
            self._condition.notify_all()
        self._thread.join(timeout=1.0)
        return left

    def _lane_of(self, entry: Entry) -> deque[Entry]:
        if entry.kind == "artifact":
            return self._artifacts
        return self._status if entry.kind == "status" else self._records

    def _is_waiting(self) -> bool:
        return bool(self._records or self._artifacts or self._status)

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._is_urgent or self._is_closing, timeout=self._pause_seconds())
                self._is_urgent = False
                is_last = self._is_closing
                if is_last and not self._is_waiting():
                    return
            if self._send_lane(self._records) and self._send_lane(self._status):
                self._send_artifacts(is_last)
            if is_last and self._is_waiting():
                time.sleep(min(1.0, self._interval_seconds))

    def _pause_seconds(self) -> float:
        return min(self._interval_seconds * 2**self._num_failures, max(MAX_PAUSE_SECONDS, self._interval_seconds))

    def _send_lane(self, lane: deque[Entry]) -> bool:
        """Sends the lane from its head; a refused batch again in halves. False if the store is away."""
        limit = MAX_ENTRIES_IN_BATCH
        while True:
            with self._condition:
                batch = next_batch(lane)[:limit]
            if not batch:
                return True
            try:
                self._deliver(batch)
            except RejectedError as error:
                if len(batch) > 1:
                    limit = len(batch) // 2
                    continue
                self._drop(lane, batch, root_cause(error))
            except Exception as error:  # a lost server must not end a training run, whatever its client raises
                with self._condition:
                    self._last_error = root_cause(error)
                    self._num_failures += 1
                    self._condition.notify_all()
                return False
            else:
                self._drop(lane, batch, "")
                limit = min(2 * limit, MAX_ENTRIES_IN_BATCH)

    def _drop(self, lane: deque[Entry], batch: Sequence[Entry], rejection: str) -> None:
        """Takes a delivered or refused batch off its lane."""
        with self._condition:
            self._num_failures, self._is_stalled = 0, False
            for _ in range(min(len(batch), len(lane))):
                lane.popleft()
            if rejection:
                self._rejected.extend(batch)
                self._last_error = rejection
            self._condition.notify_all()

    def _send_artifacts(self, is_last: bool) -> None:
        """Tries each artifact once; one that fails stays for later, or is set aside if no later try will come."""
        with self._condition:
            waiting = list(self._artifacts)
        for artifact in waiting:
            failure = ""
            try:
                self._deliver([artifact])
            except Exception as error:  # its target cannot be written, or the server is away
                failure = root_cause(error)
            with self._condition:
                if failure:
                    self._last_error = failure
                if artifact in self._artifacts and (not failure or is_last):
                    self._artifacts.remove(artifact)
                    if failure:
                        self._rejected.append(artifact)
                self._condition.notify_all()


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


def root_cause(error: BaseException) -> str:
    """One line: the innermost cause that the text of a network error quotes, else the text itself."""
    text = " ".join(str(error).split())
    _, is_nested, cause = text.rpartition("(Caused by ")
    return f"{type(error).__name__}: {cause.removesuffix(')')[:300] if is_nested else text[:300]}"
