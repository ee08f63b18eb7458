"""One session of a training: its clock, its checkpoint, its curve, and when it pauses. Shared by all ways to learn."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from dgm.engine.interrupt import StopRequest
from dgm.runs.checkpoint import Scratch
from dgm.runs.progress import Progress
from dgm.runs.records import CurvePoint


class Recorder(Protocol):
    """Where the points of the curve are also sent to, such as a run in MLflow."""

    @property
    def run_id(self) -> str: ...
    def log_metrics(self, values: Mapping[str, float], step: int) -> None: ...
    def flush(self) -> None: ...


class Session:
    """The part of a training between two starts of the process.

    saved: what `scratch.load()` gave; it is handed over once, by `begin`, and then no longer held.
    stop_after_seconds: the session pauses then; None: it runs to the end.
    stop: to be entered around the loop, which asks `must_pause` between two steps.
    """

    def __init__(
        self,
        scratch: Scratch,
        recorder: Recorder,
        saved: dict[str, Any] | None,
        checkpoint_seconds: float,
        stop_after_seconds: float | None = None,
    ) -> None:
        self.curve: list[CurvePoint] = []
        self.stop = StopRequest()
        self._scratch, self._recorder, self._saved = scratch, recorder, saved
        self._checkpoint_seconds, self._stop_after_seconds = checkpoint_seconds, stop_after_seconds
        self._seconds_before = 0.0
        self._began = self._saved_at = time.monotonic()
        self._is_restored = False

    def begin(self) -> dict[str, Any] | None:
        """Starts the clock. Returns the state of the checkpoint to continue from, None at the start of a training."""
        self.restart_clock()
        saved, self._saved = self._saved, None
        if saved is not None:
            self._seconds_before = saved["seconds"]
            self.curve = [CurvePoint(**point) for point in saved["curve"]]
        return saved

    def restart_clock(self) -> None:
        """This session's seconds count from now."""
        self._began = self._saved_at = time.monotonic()

    @property
    def checkpoint(self) -> Path | None:
        """The last good checkpoint; None before the first."""
        return self._scratch.path

    @property
    def seconds(self) -> float:
        """Seconds of training so far, over all sessions."""
        return self._seconds_before + time.monotonic() - self._began

    @property
    def is_restored(self) -> bool:
        """Whether the loop runs: what was saved has been taken over, or nothing was."""
        return self._is_restored

    @property
    def is_interrupted(self) -> bool:
        """Whether SIGTERM or Ctrl-C asked the loop to end."""
        return self.stop.is_set

    def must_pause(self, has_advanced: bool) -> bool:
        """Whether to save and return now. A session's time limit leaves room for one step at least."""
        self._is_restored = True
        if self.stop.is_set:
            return True
        limit = self._stop_after_seconds
        return limit is not None and has_advanced and time.monotonic() - self._began > limit

    @property
    def is_checkpoint_due(self) -> bool:
        return time.monotonic() - self._saved_at > self._checkpoint_seconds

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes a checkpoint of `state` and of this session, after the points before it have been sent."""
        self._recorder.flush()
        curve = [asdict(point) for point in self.curve]
        self._scratch.save({**state, "curve": curve, "seconds": self.seconds, "run": self._recorder.run_id})
        self._saved_at = time.monotonic()

    def record(self, point: CurvePoint) -> None:
        """Adds a point to the curve, and sends it."""
        self.curve.append(point)
        values = asdict(point)
        step = values.pop("step")
        del values["images_seen"]
        self._recorder.log_metrics({name: value for name, value in values.items() if value is not None}, step)

    def show(self, bar: Progress, step: int, images_seen: int, train_bits: float, learning_rate: float) -> None:
        """Moves the progress bar to `step`; train_bits are bits per sub-pixel."""
        validation_bits = self.curve[-1].validation_bits_per_subpixel if self.curve else None
        rate = images_seen / max(self.seconds, 1e-9)
        bar.update(step, rate, train_bits, validation_bits, learning_rate, self.seconds)
