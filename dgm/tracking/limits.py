"""Calls that must not take longer than they are worth waiting for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

LOOK_SECONDS = 0.2
Result = TypeVar("Result")


def call_within(seconds: float, function: Callable[[], Result], progress: Callable[[], object] | None = None) -> Result:
    """What `function` returns or raises. Raises: TimeoutError after `seconds`; the call is then abandoned.

    progress: a value that changes while the call gets on; each change gives it `seconds` more.
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
    last, deadline = seen[0], time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < deadline:
        thread.join(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
        if seen[0] != last:
            last, deadline = seen[0], time.monotonic() + seconds
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return results[0]
