"""SIGTERM and Ctrl-C while a loop runs: a request to end after the step, so that a checkpoint can be written."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Inside its `with` block the first SIGTERM or Ctrl-C only sets `is_set`.

    A second Ctrl-C interrupts at once, for a user who does not want to wait for the step; further SIGTERMs change
    nothing, since some systems send several. A signal that the process was told to ignore stays ignored.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._previous: dict[signal.Signals, signal._HANDLER] = {}  # pyright: ignore[reportPrivateUsage]

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there only
            for number in SIGNALS:
                if (previous := signal.getsignal(number)) is not signal.SIG_IGN:
                    self._previous[number] = previous
                    signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.is_set and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.is_set = True
