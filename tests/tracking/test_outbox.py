from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from dgm.tracking.outbox import Entry, Outbox, RejectedError, next_batch, root_cause


def metric(step: int) -> Entry:
    return Entry("metric", "bits", 1.0 * step, step, 0)


class Store:
    """Takes batches while it is up; remembers what came, and how often it was asked in vain."""

    def __init__(self) -> None:
        self.is_up, self.num_refused = True, 0
        self.steps: list[int] = []

    def deliver(self, batch: Sequence[Entry]) -> None:
        if not self.is_up:
            self.num_refused += 1
            raise ConnectionError("gone")
        if any(entry.key == "refused" for entry in batch):
            raise RejectedError("never")
        self.steps.extend(entry.step for entry in batch)


def test_flush_delivers_everything_in_order() -> None:
    store = Store()
    outbox = Outbox(store.deliver, interval_seconds=60.0)
    outbox.put(metric(step) for step in range(2500))
    assert outbox.flush(5.0)
    assert store.steps == list(range(2500))
    assert outbox.close(1.0) == []


def test_sends_by_itself_at_intervals() -> None:
    arrived = threading.Event()
    outbox = Outbox(lambda batch: arrived.set(), interval_seconds=0.02)
    outbox.put([metric(0)])
    assert arrived.wait(5.0)
    assert outbox.close(5.0) == []


def test_points_put_while_the_store_is_away_arrive_when_it_is_back() -> None:
    store = Store()
    store.is_up = False
    outbox = Outbox(store.deliver, interval_seconds=0.02)
    outbox.put(metric(step) for step in range(5))
    assert not outbox.flush(5.0)
    store.is_up = True
    outbox.put([metric(5)])
    assert outbox.close(5.0) == []
    assert store.steps == [0, 1, 2, 3, 4, 5]
    assert store.num_refused >= 1
    assert "gone" in outbox.last_error


def test_flush_does_not_wait_for_a_store_that_is_away() -> None:
    store = Store()
    store.is_up = False
    outbox = Outbox(store.deliver, interval_seconds=60.0)
    outbox.put([metric(0)])
    assert not outbox.flush(5.0)
    began = time.monotonic()
    assert not outbox.flush(5.0)
    assert time.monotonic() - began < 1.0
    time.sleep(0.1)
    assert store.num_refused == 1, "a flush does not ask again before the pause is over"
    assert outbox.close(0.1) == [metric(0)]


def test_close_does_not_wait_for_a_store_that_hangs() -> None:
    released = threading.Event()

    def hang(batch: Sequence[Entry]) -> None:
        released.wait(10.0)

    outbox = Outbox(hang, interval_seconds=0.01)
    outbox.put([metric(0), metric(1)])
    began = time.monotonic()
    assert outbox.close(0.2) == [metric(0), metric(1)]
    assert time.monotonic() - began < 3.0
    released.set()


def test_only_the_first_flush_waits_for_a_store_that_hangs() -> None:
    released, arrived = threading.Event(), list[int]()

    def hang(batch: Sequence[Entry]) -> None:
        released.wait(10.0)
        arrived.extend(entry.step for entry in batch)

    outbox = Outbox(hang, interval_seconds=0.01)
    outbox.put([metric(0)])
    assert not outbox.flush(0.3)
    began = time.monotonic()
    assert not outbox.flush(5.0)
    assert time.monotonic() - began < 1.0
    released.set()
    outbox.put([metric(1)])
    assert outbox.close(5.0) == []
    assert arrived == [0, 1]


def test_an_artifact_that_fails_is_tried_again_and_holds_back_no_other() -> None:
    delivered, is_writable = list[str](), threading.Event()

    def deliver(batch: Sequence[Entry]) -> None:
        if batch[0].kind == "artifact" and not is_writable.is_set():
            raise PermissionError("read-only")
        delivered.extend(entry.kind for entry in batch)

    outbox = Outbox(deliver, interval_seconds=0.02)
    outbox.put([Entry("artifact", "", "curve.csv", 0, 0), metric(0), Entry("status", "status", "FINISHED", 0, 0)])
    assert outbox.flush(5.0), "a flush is for the points: it does not wait for artifacts"
    is_writable.set()
    assert outbox.close(5.0) == []
    assert delivered == ["metric", "status", "artifact"]


def test_a_refused_entry_takes_no_other_of_its_batch_with_it() -> None:
    delivered = list[int]()

    def deliver(batch: Sequence[Entry]) -> None:
        if any(entry.step in (3, 4, 700) for entry in batch):
            raise RejectedError("never")
        delivered.extend(entry.step for entry in batch)

    outbox = Outbox(deliver, interval_seconds=60.0)
    outbox.put(metric(step) for step in range(1500))
    assert outbox.flush(5.0)
    assert outbox.close(1.0) == [metric(3), metric(4), metric(700)]
    assert delivered == [step for step in range(1500) if step not in (3, 4, 700)]


def test_a_refused_batch_is_set_aside_and_does_not_block_the_rest() -> None:
    store = Store()
    outbox = Outbox(store.deliver, interval_seconds=60.0)
    bad = Entry("param", "refused", "value", 0, 0)
    outbox.put([bad])
    assert outbox.flush(5.0)
    outbox.put([metric(7)])
    assert outbox.flush(5.0)
    assert store.steps == [7]
    assert outbox.close(1.0) == [bad]


def test_batches_respect_the_limits_of_one_call() -> None:
    artifact = Entry("artifact", "", "curve.csv", 0, 0)
    params = [Entry("param", f"p{i}", "1", 0, 0) for i in range(150)]
    assert len(next_batch([metric(step) for step in range(1500)])) == 1000
    assert next_batch(params) == params[:100]
    assert len(next_batch([*params[:100], *(metric(step) for step in range(1500))])) == 1000
    assert next_batch([metric(0), artifact, metric(1)]) == [metric(0)]
    assert next_batch([artifact, metric(1)]) == [artifact]
    assert next_batch([]) == []


def test_root_cause_is_one_line_with_the_innermost_reason() -> None:
    assert root_cause(ValueError("two\nlines")) == "ValueError: two lines"
    nested = OSError('GET failed: retries exceeded (Caused by NewError("port 5: connection refused"))')
    assert root_cause(nested) == 'OSError: NewError("port 5: connection refused")'
