"""Calls that must not take longer than they are worth waiting for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

LOOK_SECONDS = 0.2
UNDO_SECONDS = 5.0
WORK_SECONDS = 0.3  # of processor time: much more than waiting takes
Result = TypeVar("Result")


def call_within(
    seconds: float,
    function: Callable[[], Result],
    progress: Callable[[], object] | None = None,
    undo: Callable[[Result], object] | None = None,
) -> Result:
    """What `function` returns or raises. Raises: TimeoutError after `seconds` without progress; the call is abandoned.

    Progress is processor time that this process has used, so that a busy machine is no reason to give up, while a lock,
    a disk or a server that does not answer is; and a change of `progress`, which is looked at now and then. `undo` gets
    what `function` returns soon after the wait for it was interrupted.
    """
    results: list[Result] = []
    errors: list[Exception] = []
    seen: list[object] = [None]

    def work() -> None:
        try:
            results.append(function())
        except Exception as error:  # handed to the caller below
            errors.append(error)

    def watch(looked_at: Callable[[], object]) -> None:
        while thread.is_alive():
            seen[0] = looked_at()
            time.sleep(LOOK_SECONDS)

    thread = threading.Thread(target=work, name="tracking-connect", daemon=True)
    thread.start()
    if progress is not None:
        threading.Thread(target=watch, args=(progress,), name="tracking-watch", daemon=True).start()
    last, deadline = None, time.monotonic() + seconds
    try:
        while thread.is_alive() and time.monotonic() < deadline:
            thread.join(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
            if (reached := (seen[0], time.process_time() // WORK_SECONDS)) != last:
                last, deadline = reached, time.monotonic() + seconds
    except KeyboardInterrupt:
        if undo is not None:
            thread.join(UNDO_SECONDS)
            for result in results:
                undo(result)
        raise
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return results[0]
