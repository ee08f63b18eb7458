"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it holds is released, temporary files are removed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = "interrupted; `dvc repro` continues from here"
CTRL_C_CODE, TERMINATED_CODE = 130, 143  # exit codes, as shells give them
Handler = Callable[[int, FrameType | None], object]
_arrived: list[KeyboardInterrupt] = []  # what was raised inside the with block that is running
_holders: list[None] = []  # one for each `hold_signals` that was not released
_waiting: list[int] = []  # signals that came meanwhile


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived, the normal way for a cluster or a container to stop a process: treated as Ctrl-C.

    So is SIGHUP, which comes when a terminal or a connection closes.
    """


def exit_code(interrupt: KeyboardInterrupt) -> int:
    return TERMINATED_CODE if isinstance(interrupt, Terminated) else CTRL_C_CODE


def hidden_interrupt() -> KeyboardInterrupt | None:
    """What a signal raised inside `unwinding`, which other code may have turned into an error of its own; or None.

    Torch does: a Ctrl-C while it reads weights is a ValueError, by which the file would be called damaged.
    """
    return _arrived[0] if _arrived else None


@contextmanager
def unwinding() -> Generator[None]:
    """Inside the with block SIGTERM and SIGHUP raise Terminated, and Ctrl-C raises KeyboardInterrupt.

    SIGHUP is passed on as SIGTERM, so that it also means what a loop inside lets SIGTERM mean. Further ones change
    nothing: they would cut the cleaning up short. A signal that the process was told to ignore stays ignored (nohup).
    """
    handlers: dict[signal.Signals, Handler] = {
        signal.SIGINT: _unwind,
        signal.SIGTERM: _unwind,
        signal.SIGHUP: _pass_on,
    }
    _arrived.clear()
    with _handled_by(handlers):
        yield


def hold_signals() -> None:
    """Until `release_signals` what `unwinding` would raise waits: for a moment after which something is to be undone.

    A mask of the thread would not do: other threads take the signals of a process too. Only the main thread is
    interrupted, so that in others it does nothing.
    """
    if threading.current_thread() is threading.main_thread():
        _holders.append(None)


def release_signals() -> None:
    """Raises: KeyboardInterrupt or Terminated, if a signal came meanwhile."""
    if threading.current_thread() is threading.main_thread() and _holders:
        _holders.pop()
        if not _holders and _waiting:
            number = _waiting[0]
            _waiting.clear()
            _unwind(number, None)


def end_at_once() -> None:
    """From now on SIGTERM, SIGHUP and Ctrl-C end the process with one line: it has begun nothing yet."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


@contextmanager
def _handled_by(handlers: dict[signal.Signals, Handler]) -> Generator[None]:
    previous: dict[signal.Signals, signal._HANDLER] = {}  # pyright: ignore[reportPrivateUsage]
    if threading.current_thread() is threading.main_thread():  # Python allows handlers there only
        for number, handler in handlers.items():
            if (before := signal.getsignal(number)) is not signal.SIG_IGN:
                previous[number] = before
                signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _unwind(number: int, frame: FrameType | None) -> None:
    if _holders:
        _waiting.append(number)
        return
    signal.signal(number, signal.SIG_IGN)
    interrupt = KeyboardInterrupt() if number == signal.SIGINT else Terminated()
    _arrived.append(interrupt)
    raise interrupt


def _pass_on(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(CTRL_C_CODE if number == signal.SIGINT else TERMINATED_CODE)
