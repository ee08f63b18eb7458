"""A run that nobody records: what a stage reports to where there is no MLflow, or none is wanted."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from dgm.tracking.secrets import VARIABLE

OFF = "none"  # the value of MLFLOW_TRACKING_URI that switches recording off


def is_tracking_off() -> bool:
    """Whether MLFLOW_TRACKING_URI is none, or names no store on a machine without MLflow."""
    uri = os.environ.get(VARIABLE, "").strip()
    return uri.lower() == OFF or (not uri and importlib.util.find_spec("mlflow") is None)


class UntrackedRun:
    """Takes what a TrackedRun takes and keeps nothing."""

    run_id = ""

    def __enter__(self) -> UntrackedRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing has to be ended."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Drops them."""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Drops them."""

    def log_figures(self, values: Mapping[str, float], timestamp_ms: int) -> None:
        """Drops them."""

    def set_tags(self, tags: Mapping[str, str | None]) -> None:
        """Drops them."""

    def log_artifact(self, path: Path, folder: str | None) -> None:
        """Drops it."""

    def flush(self) -> None:
        """Nothing is buffered."""

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED", "RUNNING"]) -> None:
        """Nothing has to be ended."""
