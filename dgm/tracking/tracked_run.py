"""A run in MLflow that is being recorded: nothing that a stage calls here waits for the store or fails with it."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast

from dgm.tracking.delivery import deliver
from dgm.tracking.outbox import Entry, Outbox
from dgm.tracking.undelivered import keep_undelivered, undelivered_folder

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

SEND_EVERY_SECONDS = 5.0
FLUSH_SECONDS = 10.0
FINISH_SECONDS = 15.0
MAX_VALUE_CHARACTERS = 6000


class TrackedRun:
    """A run that is being recorded. Every method returns at once: a background thread does the sending.

    As a context manager it ends the run as FINISHED, as FAILED on an exception, as KILLED on Ctrl-C.
    """

    def __init__(
        self,
        client: MlflowClient,
        run: Run,
        last_steps: Mapping[str, int],
        conceal: Callable[[str], str] = str,
        is_training: bool = True,
    ) -> None:
        """run: as it is in the store; conceal: takes the secrets of the store's address out of a message.

        is_training: the run ends when the recording does; otherwise it has ended before, and keeps its duration.
        """
        self.client, self.run, self.conceal = client, run, conceal
        self.run_id: str = run.info.run_id
        self._params: dict[str, str] = dict(run.data.params)
        self._tags: dict[str, str] = dict(run.data.tags)
        self._last_steps = last_steps
        self._outbox = Outbox(lambda batch: deliver(client, self.run_id, batch), SEND_EVERY_SECONDS)
        self._ended_ms: int | None = None if is_training else run.info.end_time
        self._is_finished = False

    def __enter__(self) -> TrackedRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish("FINISHED")
        else:
            self.finish("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Records nested parameters under dotted names.

        MLflow never changes a parameter. Where this run holds another value, from a stage that ran before with other
        settings, the new one gets the next free of name_v2, name_v3 ...
        """
        for plain_name, value in flatten(params):
            text = str(value)[:MAX_VALUE_CHARACTERS]
            name, version = plain_name, 1
            while self._params.get(name, text) != text:
                version += 1
                name = f"{plain_name}_v{version}"
            if name not in self._params:
                self._params[name] = text
                self._put("param", name, text)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Records one point of each curve; on a resumed training, not again up to the last step in the store."""
        for name, value in values.items():
            if step > self._last_steps.get(allowed_name(name), -1):
                self._put("metric", allowed_name(name), float(value), step)

    def log_figures(self, values: Mapping[str, float], timestamp_ms: int) -> None:
        """Records numbers that are no curve, unless the run has them. timestamp_ms: when they were measured."""
        held = self.run.data.metrics
        new = [(allowed_name(name), float(value)) for name, value in values.items()]
        self._outbox.put(
            Entry("metric", name, value, 0, timestamp_ms) for name, value in new if held.get(name) != value
        )

    def set_tags(self, tags: Mapping[str, str | None]) -> None:
        """Says what the run is; a later value replaces an earlier one. What is None or is said already is left out."""
        for name, value in tags.items():
            if value is not None and self._tags.get(name) != (text := value[:MAX_VALUE_CHARACTERS]):
                self._tags[name] = text
                self._put("tag", name, text)

    def log_artifact(self, path: Path, folder: str | None) -> None:
        """Copies a file into the run's artifacts. Raises: FileNotFoundError."""
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file to record")
        self._put("artifact", folder or "", str(path.resolve()))

    def flush(self) -> None:
        """Waits until everything is in the store, or not at all while the store is away."""
        self._outbox.flush(FLUSH_SECONDS)

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED", "RUNNING"]) -> None:
        """Ends the recording; RUNNING leaves the run open for a later session. Further calls do nothing.

        What the store does not take within 15 s is kept in .scratch/mlflow-undelivered/<run id>.jsonl (undelivered.py).
        """
        if self._is_finished:
            return
        self._is_finished = True
        if status != "RUNNING":
            self._outbox.put([Entry("status", "status", status, 0, self._ended_ms or int(time.time() * 1000))])
        try:
            self._keep(self._outbox.close(FINISH_SECONDS))
        except KeyboardInterrupt:  # the user or the cluster waits no longer
            self._keep(self._outbox.close(0.0))
            raise

    def _keep(self, left: Sequence[Entry]) -> None:
        """Writes down what the store did not take, with a warning."""
        if not left:
            return
        reason = self.conceal(self._outbox.last_error)
        warning = f"warning: MLflow did not take {len(left)} records of run {self.run_id} ({reason})"
        try:
            path = keep_undelivered(self.run_id, left)
            print(f"{warning}; they are kept in {path}; the next command sends them", file=sys.stderr, flush=True)
        except OSError as error:
            place = error.filename or undelivered_folder()
            print(f"{warning}; nor could they be kept in {place}: {error.strerror}", file=sys.stderr, flush=True)

    def _put(
        self, kind: Literal["metric", "param", "tag", "artifact"], key: str, value: float | str, step: int = 0
    ) -> None:
        self._outbox.put([Entry(kind, key, value, step, int(time.time() * 1000))])


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf of nested mappings."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(cast("Mapping[str, Any]", value), f"{prefix}{name}.")
        else:
            yield allowed_name(f"{prefix}{name}"), value


def allowed_name(name: str) -> str:
    """`name` with what MLflow forbids in names replaced, e.g. the parentheses of importance-weighted (64)."""
    return re.sub(r"[^A-Za-z0-9_.\-/ ]", "_", name)
